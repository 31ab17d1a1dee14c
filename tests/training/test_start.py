"""Runs of torchvision's networks: initial weights, pixel statistics, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from exports.bundle.reader import load_bundle
from exports.pipeline import export_bundle
from serving.inference.engine import Engine
from training.checkpoint import load_checkpoint
from training.data.load import load_dataset
from training.errors import RecipeError
from training.models.pretrained import pixel_statistics
from training.models.torchvision_backbones import SPECS
from training.recipes.schema import Recipe
from training.run import run_recipe

NETWORK = "torchvision-mobilenet-v3"
SMALL = {"name": "resnet10", "width": 4, "exits": [4]}


def recipe(name: str, **changes: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": name,
            "data": {"name": "digits", "held_out": 1270, "padding": 1, "flip": False},
            "network": {"name": NETWORK, "exits": [2, 4]},
            "objective": {"method": "cross_entropy"},
            "train": {"epochs": 1, "batch_size": 32, "learning_rate": 0.01},
            **changes,
        }
    )


def run(place: Path, what: Recipe) -> None:
    run_recipe(what, runs=place, data_root=place, device="cpu", say=lambda _: None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights that differ from those of a new network."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(SPECS[NETWORK].build().state_dict(), path)
    return path


def test_a_run_from_a_weights_file_keeps_a_frozen_backbone_is_exported_and_answers(
    tmp_path: Path, weights: Path
) -> None:
    run(tmp_path, recipe("mine", start={"weights": str(weights), "frozen": True}))
    network, config = load_checkpoint(tmp_path / "mine")
    given = torch.load(weights, weights_only=True)
    assert torch.equal(network.stages[0][0][0].weight, given["features.0.0.weight"])
    assert (config.mean, config.std) == pixel_statistics(NETWORK)

    export_bundle(tmp_path / "mine", tmp_path / "bundle", data_root=tmp_path, say=lambda _: None)
    bundle = load_bundle(tmp_path / "bundle")
    images = load_dataset(config.recipe.data, tmp_path).test.images[:3]
    assert len(Engine(bundle).classify(images, bundle.policy)) == 3
    # The bundle does not reveal the directory of the weights file.
    assert bundle.manifest.provenance.recipe["start"]["weights"] == "weights.pth"


def test_a_new_student_normalises_as_its_pretrained_teacher(tmp_path: Path, weights: Path) -> None:
    run(tmp_path, recipe("first", start={"weights": str(weights)}))
    distilled = {"objective": {"method": "mskd"}, "teacher": {"recipe": "first"}}
    run(tmp_path, recipe("second", network=SMALL, **distilled))
    assert load_checkpoint(tmp_path / "second")[1].mean == pixel_statistics(NETWORK)[0]


def test_a_pretrained_student_with_other_pixel_statistics_than_its_teacher_is_refused(
    tmp_path: Path, weights: Path
) -> None:
    run(tmp_path, recipe("first", network=SMALL))
    start = {"weights": str(weights)}
    student = recipe(
        "second", start=start, objective={"method": "mskd"}, teacher={"recipe": "first"}
    )
    with pytest.raises(RecipeError, match="start the teacher from pretrained weights"):
        run(tmp_path, student)
    assert not (tmp_path / "second").exists()


def test_a_failed_start_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no file"):
        run(tmp_path, recipe("mine", start={"weights": str(tmp_path / "none.pth")}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"name": NETWORK, "width": 64}}, "has its own width: leave out width"),
        ({"start": {"weights": "w.pth", "recipe": "first"}}, "either recipe or weights"),
        ({"start": {"frozen": True}}, "either recipe or weights"),
        ({"network": SMALL, "start": {"weights": "torchvision"}}, "not resnet10"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe("mine", **changes)


def test_a_torchvision_networks_recipe_survives_json() -> None:
    whole = recipe("mine")
    assert Recipe.model_validate_json(whole.model_dump_json()) == whole
