"""On CPUs onnxruntime fills the views of networks that it runs faster, under a key of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.training.teachers.recipes import run, student, view_files
from tests.training.two_exits import two_exits
from training.checkpoint import CheckpointConfig, read_config
from training.models.multi_exit import MultiExit, Normalize
from training.recipes.network import NetworkRecipe
from training.teachers import open_views
from training.teachers.cache import KEY_FILE, ViewCache
from training.teachers.classifier import NetworkClassifier
from training.teachers.exported import ExportedClassifier
from training.teachers.key import TrainingImages
from training.teachers.open_views import ONNXRUNTIME, by_onnxruntime, view_cache

CPU = torch.device("cpu")


class Float32Classifier(NetworkClassifier):
    """Stands for ExportedClassifier, without an export."""

    def __init__(self, network: MultiExit, normalize: Normalize, size: tuple[int, int]) -> None:
        super().__init__(network, normalize, "fp32", CPU)


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small teacher counts as a network that onnxruntime runs faster, and the digits as enough."""
    monkeypatch.setattr(NetworkRecipe, "is_depthwise", True)
    monkeypatch.setattr(open_views, "MIN_IMAGES_TO_EXPORT", 1)


def cache_of(
    place: Path, count: int = 20_000, device: str = "cpu", network: str | None = None
) -> ViewCache:
    """The cache of a student's views; `network` is the teacher's, by default that of its run."""
    recipe = student()
    config: CheckpointConfig = read_config(place / "teacher")
    if network is not None:
        other = NetworkRecipe.model_validate({"name": network})
        taught = config.recipe.model_copy(update={"network": other})
        config = config.model_copy(update={"recipe": taught})
    images = TrainingImages(recipe.data, count, 8, 8)
    return view_cache(recipe, images, 10, config, place, torch.device(device))


def test_logits_are_those_of_torch_in_float32() -> None:
    network, normalize = two_exits(side=12), Normalize((0.5,) * 3, (0.25,) * 3)
    images = torch.randint(0, 256, (70, 8, 8, 3), dtype=torch.uint8)
    exported = ExportedClassifier(network, normalize, (8, 8)).logits(images)
    expected = NetworkClassifier(network, normalize, "fp32", CPU).logits(images)
    assert exported.shape == (2, 70, 10)
    torch.testing.assert_close(exported, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "chosen"),
    [
        ("efficientnet-lite2", True),
        ("torchvision-mobilenet-v3", True),
        ("vgg13", False),
        ("resnet18", False),
    ],
)
def test_networks_of_depthwise_convolutions_are_exported(
    place: Path, network: str, chosen: bool
) -> None:
    assert by_onnxruntime(cache_of(place, network=network)) is chosen


def test_few_images_and_gpus_stay_with_torch(place: Path) -> None:
    assert not by_onnxruntime(cache_of(place, 6_000, network="efficientnet-lite0"))
    assert not by_onnxruntime(cache_of(place, device="meta", network="efficientnet-lite0"))


@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("exported", [True, False])
def test_a_cache_that_was_started_is_continued(
    place: Path, monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    monkeypatch.setattr(open_views, "ExportedClassifier", Float32Classifier)
    monkeypatch.setattr(NetworkRecipe, "is_depthwise", exported)
    said: list[str] = []
    run(place, student(epochs=1), say=said.append)
    assert any("exported to ONNX" in line for line in said) is exported
    monkeypatch.setattr(NetworkRecipe, "is_depthwise", not exported)
    run(place, student(name="longer", epochs=2))
    files = view_files(place)
    assert len(files) == 2
    assert len({file.parent for file in files}) == 1
    content = json.loads((files[0].parent / KEY_FILE).read_text())
    assert (content["teacher"]["precision"] == ONNXRUNTIME) is exported
