"""From a folder of pictures to trained networks, or to one sentence."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training.photos
from tests.conftest import offramp
from training.choose import Choice, choose
from training.data.survey import Survey, survey
from training.errors import CheckpointError, DataError, RecipeError
from training.photos import run_name, train_folder
from training.recipe_files import load_recipe


def pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """`count` pictures each of two classes, of `size` (width, height), below `folder`."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(level, 20, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes as chosen, but for a single epoch of the smallest networks."""

    def short(*arguments: object, **options: bool) -> Choice:
        choice = choose(*arguments, **options)  # type: ignore[arg-type]
        small = {"name": "resnet10", "width": 4, "exits": (2, 4)}
        recipes = [
            recipe.model_copy(
                update={
                    "train": recipe.train.model_copy(update={"epochs": 1}),
                    "network": recipe.network.model_copy(update=small),
                }
            )
            for recipe in choice.recipes
        ]
        return Choice(tuple(recipes), choice.reasons)

    monkeypatch.setattr(training.photos, "choose", short)


def test_a_survey_counts_what_is_trained_on_and_measures_the_shorter_sides(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 10, (50, 36))
    assert survey(folder) == Survey({"dark": 8, "light": 8}, 36)
    whole = pictures(tmp_path / "split" / "train", 10, (36, 50)).parent
    pictures(whole / "test", 2, (36, 50))
    assert survey(whole) == Survey({"dark": 10, "light": 10}, 36)


@pytest.mark.usefixtures("_brief")
def test_with_a_teacher_both_recipes_are_written_and_run_and_can_be_run_again(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    folder = pictures(tmp_path / "My Photos", 10, (36, 36))
    runs = tmp_path / "runs"
    config = train_folder(folder, runs=runs, device="cpu", teacher=True, say=said.append)
    assert config.recipe.name == "my-photos"
    assert config.teacher_test is not None
    for name in ("my-photos-teacher", "my-photos"):
        assert (runs / name / "checkpoint.json").is_file()
        assert f"recipe: {runs / name}.toml" in said
    assert load_recipe(str(runs / "my-photos.toml")) == config.recipe

    # A finished run is left alone; a finished teacher serves again.
    with pytest.raises(CheckpointError, match="finished run"):
        train_folder(folder, runs=runs, device="cpu", teacher=True)
    (runs / "my-photos").rename(tmp_path / "before")
    teacher = (runs / "my-photos-teacher" / "model.safetensors").stat().st_mtime_ns
    again = train_folder(folder, runs=runs, device="cpu", teacher=True, say=said.append)
    assert again.test == config.test
    assert (runs / "my-photos-teacher" / "model.safetensors").stat().st_mtime_ns == teacher


def test_without_a_network_nothing_is_written_and_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    folder = pictures(tmp_path / "photos", 5, (80, 70))
    with pytest.raises(RecipeError, match="--from-scratch") as caught:
        train_folder(folder, runs=tmp_path / "runs", device="cpu", say=lambda _: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 5, (36, 36))
    (folder / "dark" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"dark/0\.png"):
        train_folder(folder, runs=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("photos", "photos"), ("My Photos (2)", "my-photos-2"), ("..", "pictures"), ("Ä", "pictures")],
)
def test_a_run_is_named_after_its_folder(folder: str, name: str) -> None:
    assert run_name(folder) == name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "offramp train --data photos/"),
        (["train", "--data", "nowhere"], "nowhere is not a directory"),
        (["train", "digits-oto", "--teacher"], "digits-oto is one already"),
    ],
)
def test_the_command_line_says_one_sentence_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = offramp(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
