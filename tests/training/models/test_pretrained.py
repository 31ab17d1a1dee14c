"""EfficientNet-Lite's first weights: where they come from, what a run does with them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from offramp.errors import MissingExtraError
from training.checkpoint import load_checkpoint
from training.errors import RecipeError
from training.models.efficientnet_lite import SPECS, Spec, lite_backbone
from training.models.pretrained import load_pretrained, pixel_statistics, read_weights
from training.recipes.schema import Recipe
from training.run import run_recipe

LITE0, LITE2 = SPECS


def stages_of(name: str) -> nn.ModuleList:
    return nn.ModuleList(lite_backbone(name).stages)


def with_spec(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Give Lite0 another package, file or hash."""
    spec = SPECS[LITE0]
    fields = {field: getattr(spec, field) for field in ("package", "file", "sha256")}
    monkeypatch.setitem(SPECS, LITE0, Spec(spec.blocks, spec.channels, **(fields | changes)))


def test_pixels_are_normalised_as_in_the_published_training() -> None:
    for name in SPECS:
        mean, std = pixel_statistics(name)
        assert [255 * value for value in (*mean, *std)] == pytest.approx([127] * 3 + [128] * 3)


def test_a_run_from_imagenet_keeps_a_frozen_backbone(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "mine",
            "data": {"name": "digits", "held_out": 1270, "padding": 1, "flip": False},
            "network": {"name": LITE0, "exits": [2, 4]},
            "objective": {"method": "cross_entropy"},
            "start": {"weights": "imagenet", "frozen": True},
            "train": {"epochs": 1, "batch_size": 32, "learning_rate": 0.01},
        }
    )
    run_recipe(recipe, runs=tmp_path, data_root=tmp_path, device="cpu", say=lambda _: None)
    network, config = load_checkpoint(tmp_path / "mine")
    given = read_weights(LITE0, "imagenet")
    assert torch.equal(network.stages[0][1].weight, given["_conv_stem.weight"])
    assert torch.equal(network.stages[3][6].running_var, given["_bn1.running_var"])
    assert (config.mean, config.std) == pixel_statistics(LITE0)


def test_weights_are_read_from_a_torch_file(tmp_path: Path) -> None:
    given = read_weights(LITE2, "imagenet")
    torch.save(given, tmp_path / "weights.pth")
    stages = stages_of(LITE2)
    load_pretrained(stages, LITE2, str(tmp_path / "weights.pth"))
    assert torch.equal(stages[0][1].weight, given["_conv_stem.weight"])


def test_weights_of_the_other_size_and_files_without_an_order_are_refused(tmp_path: Path) -> None:
    torch.save(read_weights(LITE2, "imagenet"), tmp_path / "other.pth")
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    for name, says in (
        ("other.pth", f"not those of {LITE0}"),
        ("weights.safetensors", "keeps no order"),
    ):
        with pytest.raises(RecipeError, match=says) as caught:
            load_pretrained(stages_of(LITE0), LITE0, str(tmp_path / name))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\x80\x02}q\x00.", pickle.dumps({"a": 1}, 2), b"h\x0a."]
)
def test_a_file_that_torch_did_not_write_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(RecipeError, match=r"start\.weights: .*weights\.pth") as caught:
        load_pretrained(stages_of(LITE0), LITE0, str(tmp_path / "weights.pth"))
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with_spec(monkeypatch, package="efficientnet_lite9_pytorch_model")
    with pytest.raises(MissingExtraError, match=r"efficientnet-lite9.*offramp\[train\]"):
        read_weights(LITE0, "imagenet")


@pytest.mark.parametrize(
    ("change", "says"),
    [({"file": "models/none.pth"}, "has no file"), ({"sha256": "0" * 64}, "damaged")],
)
def test_a_damaged_package_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, str], says: str
) -> None:
    with_spec(monkeypatch, **change)
    with pytest.raises(RecipeError, match=f"{says}.*install it again"):
        read_weights(LITE0, "imagenet")
