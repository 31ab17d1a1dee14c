"""`offramp export --calibrate`: temperatures, thresholds and figures from images outside the data set."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exports.bundle.reader import load_bundle, load_table
from exports.stage_runner import StageRunner
from exports.tuning.certificate import divide
from exports.tuning.scaling import fit_scaling
from tests.commands import call
from tests.training.runs import RECIPE
from training.checkpoint import load_checkpoint
from training.data.dataset import Split
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe, Recipe
from training.run import run_recipe

CALIBRATED, TESTED = 240, 120


@pytest.fixture(scope="module")
def digits() -> Split:
    return load_dataset(DataRecipe(name="digits", held_out=1), Path("unused")).test


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, digits: Split) -> Path:
    """Digits as PNG: `collected` and `judged`, each with a folder for each class."""
    place = tmp_path_factory.mktemp("photos")
    for number, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
        part = "collected" if number < CALIBRATED else "judged"
        if number < CALIBRATED + TESTED:
            folder = place / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def calibrated(workplace: Path, photos: Path) -> Path:
    """The digits student, calibrated and judged on the folders. There is no data set."""
    target = photos / "bundle"
    folders = ("--calibrate", photos / "collected", "--test", photos / "judged")
    done = call(
        *("export", workplace / "runs" / "digits-oto", "-o", target, *folders),
        *("--data", photos / "none", "--max-accuracy-drop", 5),
    )
    assert done.code == 0, done.err
    return target


def test_the_table_temperatures_and_weights_are_of_the_given_images(
    calibrated: Path, digits: Split
) -> None:
    bundle = load_bundle(calibrated)
    table = load_table(calibrated, bundle.manifest)
    given = digits.labels[:CALIBRATED]
    assert sorted(table.labels) == sorted(given)
    first, _ = divide(CALIBRATED)
    assert bundle.manifest.scaling == fit_scaling(table.take(first))
    assert bundle.manifest.calibration.samples == CALIBRATED


def test_accuracies_are_of_the_test_folder(calibrated: Path, digits: Split) -> None:
    bundle = load_bundle(calibrated)
    origin = bundle.manifest.provenance
    assert origin.splits == {"calibration": CALIBRATED, "test": TESTED}
    assert origin.has_test
    judged = digits.take(np.arange(CALIBRATED, CALIBRATED + TESTED))
    logits = StageRunner(bundle.stages).logits(judged.images)
    for entry, own in zip(bundle.manifest.exits, logits, strict=True):
        right = 100 * float((own.argmax(1) == judged.labels).mean())
        assert entry.test.single == pytest.approx(right, abs=0.01)
    card = (calibrated / "README.md").read_text("utf-8")
    assert "chosen on images that are no part of it" in card


def test_the_default_policy_may_lose_what_was_allowed(
    calibrated: Path, workplace: Path, photos: Path
) -> None:
    strict = photos / "strict"
    done = call(
        *("export", workplace / "runs" / "digits-oto", "-o", strict),
        *("--calibrate", photos / "collected", "--test", photos / "judged"),
        *("--max-accuracy-drop", 0),
    )
    assert done.code == 0, done.err

    def cost(bundle: Path) -> float:
        return load_bundle(bundle).manifest.provenance.test_default.mean_macs

    assert cost(calibrated) < cost(strict)


def test_without_a_test_folder_a_part_of_the_images_stands_for_it(
    workplace: Path, photos: Path, tmp_path: Path
) -> None:
    run = workplace / "runs" / "digits-oto"
    done = call("export", run, "-o", tmp_path / "b", "--calibrate", photos / "collected")
    assert done.code == 0, done.err
    origin = load_bundle(tmp_path / "b").manifest.provenance
    assert origin.splits == {"calibration": CALIBRATED, "test": 0}
    assert "part of the held-out split" in origin.evaluated_on


def test_a_float32_bundle_is_calibrated_anew_and_converted(
    digits_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    options = ("--calibrate", photos / "collected", "--precision", "int8", "--allow-loss")
    done = call("export", digits_bundle, "-o", tmp_path / "int8", *options)
    assert done.code == 0, done.err
    manifest = load_bundle(tmp_path / "int8").manifest
    assert manifest.precision == "int8"
    assert manifest.calibration.samples == CALIBRATED


def test_of_a_refit_the_weights_that_are_served_are_measured(
    photos: Path, digits: Split, tmp_path: Path
) -> None:
    """The held-out split was trained on in the end, and the given images were not."""
    recipe = Recipe.model_validate({**tomllib.loads(RECIPE), "refit": True})
    run_recipe(recipe, runs=tmp_path, data_root=tmp_path, device="cpu", say=lambda _: None)
    run = tmp_path / recipe.name
    done = call("export", run, "-o", tmp_path / "b", "--calibrate", photos / "collected")
    assert done.code == 0, done.err
    bundle = load_bundle(tmp_path / "b")
    assert not bundle.manifest.provenance.refit
    table = load_table(bundle.path, bundle.manifest)
    logits = StageRunner(bundle.stages).logits(digits.images[:CALIBRATED])
    logits -= logits.max(axis=-1, keepdims=True)
    assert np.sort(table.logits.ravel()) == pytest.approx(np.sort(logits.ravel()), abs=1e-2)
    served = load_checkpoint(run / "refit")[1]
    assert served.held_out is None


def test_images_that_the_network_knows_are_reported(
    digits_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.seen.SEEN_ACCURACY", 0.5)
    done = call("export", digits_bundle, "-o", tmp_path / "b", "--calibrate", photos / "collected")
    assert done.code == 0, done.err
    assert "warning: " in done.out
    assert f"give images that it was not trained on instead of {photos / 'collected'}" in done.out


def test_bad_folders_and_numbers_are_refused_in_a_sentence_and_nothing_is_written(
    digits_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    foreign = tmp_path / "foreign" / "zebra"
    foreign.mkdir(parents=True)
    for file in sorted((photos / "collected" / "3").glob("*.png")):
        (foreign / file.name).write_bytes(file.read_bytes())
    cases = {
        "is not a directory with images": ("--calibrate", tmp_path / "missing"),
        "has the name of no class": ("--calibrate", foreign.parent),
        "no subfolders with the names of classes": ("--calibrate", photos / "collected" / "3"),
        "has 0 images": ("--calibrate", photos / "collected", "--test", empty),
        "--test goes with --calibrate": ("--test", photos / "judged"),
        "must lie between 0 and 100, not nan": ("--max-accuracy-drop", "nan"),
        "must lie between 0 and 100, not -1": ("--max-accuracy-drop", "-1"),
    }
    for says, options in cases.items():
        done = call("export", digits_bundle, "-o", tmp_path / "b", *options)
        assert done.code == 2, says
        assert says in done.err
        assert done.err.count("\n") == 1
        assert not (tmp_path / "b").exists()
