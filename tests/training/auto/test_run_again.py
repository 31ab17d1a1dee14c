"""Training on a folder again: a stopped run is resumed, and a changed folder or recipe is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands import call
from tests.training.auto.folders import killed, write_images
from tests.training.runs import Killed, contents
from training.auto_train import auto_train
from training.checkpoint import CheckpointConfig
from training.errors import CheckpointError, RecipeError
from training.recipes.files import load_recipe


@pytest.mark.usefixtures("_brief")
def test_a_stopped_refit_is_finished_by_resume_and_not_exported_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = write_images(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"

    def train(**options: bool) -> CheckpointConfig:
        return auto_train(
            folder, runs=runs, device="cpu", from_scratch=True, say=lambda _: None, **options
        )

    with monkeypatch.context() as patch:
        patch.setattr("training.run.refit_recipe", killed)
        with pytest.raises(Killed):
            train()
    refused = call("export", runs / "photos", "-o", tmp_path / "bundle")
    assert refused.refused_in_one_sentence
    assert "the refit of" in refused.err
    with pytest.raises(CheckpointError, match="whose refit is not finished: add --resume"):
        train()
    train(resume=True)
    assert (runs / "photos" / "refit" / "checkpoint.json").is_file()
    with pytest.raises(CheckpointError, match="finished run"):
        train()


@pytest.mark.usefixtures("_brief")
def test_a_stopped_run_is_not_resumed_on_other_images_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = write_images(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"

    def train(resume: bool) -> None:
        auto_train(
            folder,
            runs=runs,
            device="cpu",
            resume=resume,
            from_scratch=True,
            say=lambda _: None,
        )

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
    folder, runs = write_images(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"

    def train() -> None:
        auto_train(
            folder,
            runs=runs,
            device="cpu",
            from_scratch=True,
            teacher=True,
            say=lambda _: None,
        )

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
    folder, runs = write_images(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"
    options = {"device": "cpu", "from_scratch": True, "say": lambda _: None}
    auto_train(folder, runs=runs, **options)  # type: ignore[arg-type]
    (runs / "photos").rename(tmp_path / "before")
    file = runs / "photos.toml"
    file.write_text(file.read_text().replace("flip = true", "flip = false"))
    edited = contents(runs)
    with pytest.raises(RecipeError, match=r"`offramp train .*photos\.toml --runs .*`, or move"):
        auto_train(folder, runs=runs, **options)  # type: ignore[arg-type]
    assert contents(runs) == edited


@pytest.mark.usefixtures("_brief")
def test_a_run_without_a_refit_gets_one_by_resume(tmp_path: Path) -> None:
    folder, runs = write_images(tmp_path / "photos", 10, (36, 36)), tmp_path / "runs"

    def train(**options: bool) -> CheckpointConfig:
        return auto_train(
            folder, runs=runs, device="cpu", from_scratch=True, say=lambda _: None, **options
        )

    train(refit=False)
    with pytest.raises(CheckpointError, match="whose refit is not finished: add --resume"):
        train(refit=True)
    assert train(refit=True, resume=True).recipe.refit
    assert (runs / "photos" / "refit" / "checkpoint.json").is_file()
    assert load_recipe(str(runs / "photos.toml")).refit
    assert train(refit=False, resume=True).recipe.refit
