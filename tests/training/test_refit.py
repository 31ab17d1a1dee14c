"""A run is repeated on everything: its needs are checked first, and a finished run can be repeated later."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.training.auto.folders import write_images
from tests.training.runs import RECIPE, contents
from training.checkpoint import CheckpointConfig, read_config
from training.errors import CheckpointError, RecipeError
from training.recipes.schema import Recipe
from training.run import run_recipe


def recipe(name: str, **changes: object) -> Recipe:
    """One epoch on the digits."""
    whole = tomllib.loads(RECIPE)
    whole["train"]["epochs"] = 1
    return Recipe.model_validate({**whole, "name": name, **changes})


def train(runs: Path, one: Recipe, resume: bool = False) -> CheckpointConfig:
    return run_recipe(
        one, runs=runs, data_root=runs, device="cpu", resume=resume, say=lambda _: None
    )


@pytest.mark.parametrize("role", ["teacher", "start"])
def test_a_refit_whose_earlier_run_has_none_is_refused_before_the_first_fit(
    tmp_path: Path, role: str
) -> None:
    train(tmp_path, recipe("earlier"))
    objective = {"method": "mskd" if role == "teacher" else "cross_entropy"}
    later = recipe("later", refit=True, objective=objective, **{role: {"recipe": "earlier"}})
    with pytest.raises(RecipeError, match="train earlier with refit = true first"):
        train(tmp_path, later)
    assert not (tmp_path / "later").exists()


def test_a_finished_run_is_the_first_fit_of_a_recipe_with_a_refit(tmp_path: Path) -> None:
    once, twice = recipe("tiny"), recipe("tiny", refit=True)
    train(tmp_path, once)
    weights = (tmp_path / "tiny" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="whose refit is not finished: add --resume"):
        train(tmp_path, twice)
    train(tmp_path, twice, resume=True)
    assert (tmp_path / "tiny" / "refit" / "checkpoint.json").is_file()
    assert (tmp_path / "tiny" / "model.safetensors").read_bytes() == weights
    assert read_config(tmp_path / "tiny").recipe == twice

    # A refit that is there stays.
    trained = contents(tmp_path)
    train(tmp_path, once, resume=True)
    assert contents(tmp_path) == trained


def test_without_a_refit_an_unfinished_one_is_no_longer_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("training.run.refit_recipe", lambda recipe: exit(1))
        with pytest.raises(SystemExit):
            train(tmp_path, recipe("tiny", refit=True))
    assert read_config(tmp_path / "tiny").recipe.refit
    assert train(tmp_path, recipe("tiny"), resume=True).recipe == recipe("tiny")
    assert not read_config(tmp_path / "tiny").recipe.refit


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_of_another_recipe_is_no_first_fit(tmp_path: Path, resume: bool) -> None:
    train(tmp_path, recipe("tiny"))
    with pytest.raises(CheckpointError, match="a finished run of another recipe; move it away"):
        train(tmp_path, recipe("tiny", refit=True, seed=1), resume)


def test_a_run_is_not_repeated_on_other_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 10, (36, 36))
    data = {"name": "folder", "path": str(folder), "side": 32, "held_out": 4}
    settings = {"epochs": 1, "batch_size": 8}
    train(tmp_path / "runs", recipe("tiny", data=data, train=settings))
    (folder / "dark" / "0.png").rename(folder / "dark" / "a.png")
    again = recipe("tiny", data=data, train=settings, refit=True)
    with pytest.raises(CheckpointError, match="was trained on other images than photos holds now"):
        train(tmp_path / "runs", again, resume=True)
    assert not (tmp_path / "runs" / "tiny" / "refit").exists()
