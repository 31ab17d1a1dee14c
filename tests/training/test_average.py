"""A run's weights are the mean of those that it trained and those of an earlier run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from tests.training.runs import RECIPE, Killed
from training.average import average_weights
from training.checkpoint import load_checkpoint
from training.data.load import load_dataset, split_held_out
from training.errors import RecipeError
from training.evaluate import accuracies
from training.models.multi_exit import Normalize
from training.recipes.refit import refit_recipe
from training.recipes.schema import Recipe
from training.run import run_recipe

DATA = tomllib.loads(RECIPE)["data"]
RUNS = "first", "alone", "averaged"


def recipe(name: str, **changes: object) -> Recipe:
    """One epoch on the digits."""
    whole = tomllib.loads(RECIPE)
    whole["train"]["epochs"] = 1
    return Recipe.model_validate({**whole, "name": name, **changes})


def from_first(name: str, **changes: object) -> Recipe:
    return recipe(name, **{"start": {"recipe": "first"}, "seed": 1, **changes})


def train(runs: Path, *recipes: Recipe, resume: bool = False) -> None:
    for one in recipes:
        run_recipe(one, runs=runs, data_root=runs, device="cpu", resume=resume, say=lambda _: None)


def weights(runs: Path, name: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(runs / name)[0].state_dict()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: the first one, one that starts from it, and the same averaged with the first."""
    place = tmp_path_factory.mktemp("runs")
    averaged = from_first("averaged", average_with="first")
    train(place, recipe("first"), from_first("alone"), averaged)
    return place


def test_weights_and_running_statistics_are_the_mean_of_both(runs: Path) -> None:
    first, alone, averaged = (weights(runs, name) for name in RUNS)
    for name, tensor in averaged.items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, alone[name])
            continue
        torch.testing.assert_close(tensor, (first[name] + alone[name]) / 2)
        if name.endswith("conv1.weight"):
            assert not torch.allclose(first[name], alone[name], atol=1e-4)


def test_the_accuracies_of_the_checkpoint_are_those_of_the_mean(runs: Path) -> None:
    network, config = load_checkpoint(runs / "averaged")
    dataset = load_dataset(config.recipe.data, runs)
    normalize = Normalize(config.mean, config.std)

    def measured(images: object, labels: object) -> object:
        with torch.no_grad():
            logits = torch.stack(network(normalize(torch.as_tensor(images))))
        return accuracies(logits, torch.as_tensor(labels))

    _, held_out = split_held_out(config.recipe.data, dataset.train.labels)
    kept = dataset.train.take(held_out)
    assert config.held_out == measured(kept.images, kept.labels)
    assert config.test == measured(dataset.test.images, dataset.test.labels)


def test_a_run_killed_after_averaging_is_resumed_to_the_same_weights(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    averaged = from_first("averaged", average_with="first")
    (tmp_path / "first").symlink_to(runs / "first")
    with monkeypatch.context() as patch:
        patch.setattr("training.run.save_checkpoint", killed)
        with pytest.raises(Killed):
            train(tmp_path, averaged)
    train(tmp_path, averaged, resume=True)
    expected = weights(runs, "averaged")
    for name, tensor in weights(tmp_path, "averaged").items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"average_with": "none"}, "none, which other is averaged with, is not trained yet"),
        ({"network": {"name": "resnet10", "width": 4, "exits": [4]}}, "the networks, the classes"),
        ({"data": {**DATA, "held_out_seed": 1}}, "on another data set or held-out split"),
        ({"data": {**DATA, "held_out": 1000}}, "on another data set or held-out split"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_and_nothing_is_written(
    runs: Path, changes: dict[str, object], message: str
) -> None:
    other = recipe("other", **{"average_with": "first", **changes})
    with pytest.raises(RecipeError, match=message):
        train(runs, other)
    assert not (runs / "other").exists()


def test_a_mean_of_distant_weights_is_not_used(runs: Path, tmp_path: Path) -> None:
    """Two networks from scratch are as good as chance halfway between them."""
    settings = tomllib.loads(RECIPE)["train"]
    far = recipe("far", seed=2, average_with="other", train=settings)
    said: list[str] = []
    train(
        tmp_path, recipe("other", seed=3, train=settings), recipe("alone", seed=2, train=settings)
    )
    run_recipe(far, runs=tmp_path, data_root=tmp_path, device="cpu", say=said.append)
    (line,) = [line for line in said if line.startswith("far and other: not averaged: the mean")]
    assert "% of 267 training images" in line
    kept, alone = weights(tmp_path, "far"), weights(tmp_path, "alone")
    for name, tensor in kept.items():
        assert torch.equal(tensor, alone[name])


def test_a_refit_is_averaged_with_the_first_fit_if_both_start_from_given_weights() -> None:
    assert refit_recipe(from_first("mine")).average_with == "mine"
    assert refit_recipe(recipe("mine")).average_with is None


def test_the_mean_of_a_network_with_itself_is_itself() -> None:
    network = torch.nn.BatchNorm1d(3)
    network.weight.data.uniform_()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    average_weights(network, before)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
