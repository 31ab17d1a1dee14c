"""An image folder becomes a trained network, or is refused in one sentence."""

from __future__ import annotations

import shutil
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training.auto_train
from tests.commands import call
from tests.training.processes import two
from tests.training.runs import Killed, contents
from training.auto_train import auto_train, run_name
from training.data.survey import FolderSurvey, survey_folder
from training.errors import CheckpointError, DataError, RecipeError
from training.recipes.auto import Choice, choose_recipes
from training.recipes.files import load_recipe


def pictures(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write `count` images of each of two classes, of `size` (width, height), below `folder`."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(level, 20, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def brief(*arguments: object, **options: bool) -> Choice:
    """The recipes of `choose_recipes` with a single epoch and the smallest network."""
    choice = choose_recipes(*arguments, **options)  # type: ignore[arg-type]
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


def choose_briefly() -> None:
    training.auto_train.choose_recipes = brief  # type: ignore[attr-defined]


@pytest.fixture
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.auto_train, "choose_recipes", brief)


def killed(*_: object) -> None:
    raise Killed


def test_a_survey_counts_training_images_and_measures_the_shorter_sides(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 10, (50, 36))
    assert survey_folder(folder) == FolderSurvey({"dark": 8, "light": 8}, 36)
    whole = pictures(tmp_path / "split" / "train", 10, (36, 50)).parent
    pictures(whole / "test", 2, (36, 50))
    assert survey_folder(whole) == FolderSurvey({"dark": 10, "light": 10}, 36)


@pytest.mark.usefixtures("_brief")
def test_with_a_teacher_both_recipes_are_written_and_run_and_can_be_run_again(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    folder = pictures(tmp_path / "My Photos", 10, (36, 36))
    runs = tmp_path / "runs"
    config = auto_train(folder, runs=runs, device="cpu", teacher=True, say=said.append)
    assert config.recipe.name == "my-photos"
    assert config.teacher_test is not None
    for name in ("my-photos-teacher", "my-photos"):
        assert (runs / name / "checkpoint.json").is_file()
        assert f"recipe: {runs / name}.toml" in said
    assert load_recipe(str(runs / "my-photos.toml")) == config.recipe

    # A finished run is refused; a finished teacher is used again.
    with pytest.raises(CheckpointError, match="finished run"):
        auto_train(folder, runs=runs, device="cpu", teacher=True)
    (runs / "my-photos").rename(tmp_path / "before")
    teacher = (runs / "my-photos-teacher" / "model.safetensors").stat().st_mtime_ns
    again = auto_train(folder, runs=runs, device="cpu", teacher=True, say=said.append)
    assert again.test == config.test
    assert (runs / "my-photos-teacher" / "model.safetensors").stat().st_mtime_ns == teacher


def test_without_a_network_nothing_is_written_and_from_scratch_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    folder = pictures(tmp_path / "photos", 5, (80, 70))
    with pytest.raises(RecipeError, match="--from-scratch") as caught:
        auto_train(folder, runs=tmp_path / "runs", device="cpu", say=lambda _: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos", 5, (36, 36))
    picture = folder / "dark" / "0.png"
    for damaged in (b"no picture", picture.read_bytes()[:200]):  # the header is whole
        picture.write_bytes(damaged)
        with pytest.raises(DataError, match=r"dark/0\.png"):
            auto_train(folder, runs=tmp_path / "runs", device="cpu")
        assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("_brief")
def test_a_stopped_run_is_not_resumed_on_other_images_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = pictures(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"

    def train(resume: bool) -> None:
        auto_train(folder, runs=runs, device="cpu", resume=resume, say=lambda _: None)

    with monkeypatch.context() as patch:
        patch.setattr("training.run._finish", killed)
        with pytest.raises(Killed):
            train(resume=False)
    before = contents(runs)
    assert {"photos.toml", "photos/resume.safetensors"} <= before.keys()
    with pytest.raises(CheckpointError, match="add --resume"):
        train(resume=False)
    # More images change the recipe; another name changes the split only.
    for number in range(10, 20):
        shutil.copy(folder / "dark" / "0.png", folder / "dark" / f"{number}.png")
    with pytest.raises(CheckpointError, match="begun with another recipe"):
        train(resume=True)
    for number in range(10, 20):
        (folder / "dark" / f"{number}.png").unlink()
    (folder / "dark" / "0.png").rename(folder / "dark" / "a.png")
    with pytest.raises(CheckpointError, match="begun with other images"):
        train(resume=True)
    assert contents(runs) == before
    (folder / "dark" / "a.png").rename(folder / "dark" / "0.png")
    train(resume=True)
    assert (runs / "photos" / "checkpoint.json").is_file()


@pytest.mark.usefixtures("_brief")
def test_after_a_change_of_the_folder_export_and_teaching_are_refused(tmp_path: Path) -> None:
    folder, runs = pictures(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"

    def train() -> None:
        auto_train(folder, runs=runs, device="cpu", teacher=True, say=lambda _: None)

    train()
    (folder / "dark" / "0.png").rename(folder / "dark" / "a.png")
    refused = call("export", runs / "photos", "-o", tmp_path / "bundle")
    assert refused.refused_in_one_sentence
    assert "was trained on other images than photos has now" in refused.err
    assert not (tmp_path / "bundle").exists()
    (runs / "photos").rename(tmp_path / "before")
    with pytest.raises(RecipeError, match="teacher photos-teacher was trained on other images"):
        train()


@pytest.mark.usefixtures("_brief")
def test_an_edited_recipe_is_not_replaced(tmp_path: Path) -> None:
    folder, runs = pictures(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"
    auto_train(folder, runs=runs, device="cpu", say=lambda _: None)
    (runs / "photos").rename(tmp_path / "before")
    file = runs / "photos.toml"
    file.write_text(file.read_text().replace("flip = true", "flip = false"))
    edited = contents(runs)
    with pytest.raises(RecipeError, match=r"`offramp train .*photos\.toml`, or move it away"):
        auto_train(folder, runs=runs, device="cpu", say=lambda _: None)
    assert contents(runs) == edited


def test_of_two_processes_only_one_prints(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 10, (36, 36))
    processes = two(
        tmp_path, ("train", "--data", "photos"), dict.fromkeys(range(2), choose_briefly)
    )
    assert [process.wait() for process in processes] == [0, 0], processes[0].output
    first, second = (process.output for process in processes)
    assert first.count("- 16 training pictures in 2 classes") == 1
    assert first.count("recipe: runs/photos.toml") == 1
    assert second == ""


@pytest.mark.parametrize(
    ("folder", "name"),
    [("photos", "photos"), ("My Photos (2)", "my-photos-2"), ("..", "pictures"), ("Ä", "pictures")],
)
def test_a_run_is_named_after_its_folder(folder: str, name: str) -> None:
    assert run_name(folder) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "offramp train --data photos/"),
        (["train", "--data", "nowhere"], "nowhere is not a directory"),
        (["train", "digits-oto", "--teacher"], "but digits-oto is named"),
    ],
)
def test_the_command_line_prints_one_sentence_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.refused_in_one_sentence
    assert message in done.err
    assert list(tmp_path.iterdir()) == []
