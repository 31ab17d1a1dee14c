"""ONNX classifiers that Offramp did not make become one bundle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from exports.bundle.policy import running_ensemble
from exports.bundle.reader import load_bundle, load_table
from exports.card.markup import markdown_text
from exports.stage_runner import StageRunner
from tests.commands import call
from tests.exports.imported.by_hand import large_logits, small_logits
from tests.exports.imported.classifiers import (
    CLASSES,
    SIDE,
    coloured_images,
)
from tests.exports.imported.conftest import OTHER_ORDER, Given, Made

BUNDLE_LABELS = OTHER_ORDER[1:]


def test_every_stage_takes_the_image_and_the_labels_are_without_the_background(made: Made) -> None:
    manifest = made.bundle.manifest
    assert manifest.format == 2
    assert manifest.name == "small-large"
    assert manifest.labels == BUNDLE_LABELS
    assert [entry.input for entry in manifest.exits] == ["image", "image"]
    assert (manifest.input.width, manifest.input.height) == (SIDE, SIDE)
    recipes = [manifest.provenance.recipe, *manifest.provenance.followers]
    assert [recipe["onnx"]["file"] for recipe in recipes] == ["small.onnx", "large.onnx"]
    assert [recipe["onnx"]["outputs"] for recipe in recipes] == ["logits", "probabilities"]


def test_every_exit_has_the_logits_of_its_file(given: Given, made: Made) -> None:
    images = coloured_images(5, seed=1)
    small, large = StageRunner(made.bundle.stages).logits(images)
    order = [CLASSES.index(label) for label in BUNDLE_LABELS]
    np.testing.assert_allclose(small, small_logits(given, images)[:, order], atol=1e-3)
    np.testing.assert_allclose(large, large_logits(given, images), atol=1e-3)


def test_costs_are_counted_in_the_graphs(made: Made) -> None:
    resize = 3 * SIDE * 20 * SIDE + 3 * 20 * 20 * SIDE
    small = 4 * 3 * 9 * 20 * 20 + 4 * 4 + resize
    large = 64 * 3 * 9 * SIDE * SIDE + 64 * 5
    exits = made.bundle.manifest.exits
    assert [entry.macs for entry in exits] == [small, small + large]
    assert "0.1431 M MACs" in made.said
    assert "ms for one image on one thread here" in made.said


def test_the_default_policy_is_certified_and_saves_most_of_the_cost(made: Made) -> None:
    policy, provenance = made.bundle.policy, made.bundle.manifest.provenance
    assert policy.certificate is not None
    assert policy.certificate.target == "labels"
    assert provenance.test_default.accuracy > 95
    assert provenance.test_default.mean_macs < 0.5 * made.bundle.manifest.exits[-1].macs
    assert re.search(r"which saves [89]\d%; accuracy", made.said)


def test_inspect_and_tune_work_on_it(made: Made) -> None:
    inspected = call("inspect", made.bundle.path)
    assert inspected.code == 0, inspected.err
    assert "importing small.onnx, large.onnx" in " ".join(inspected.out.split())
    assert "verified. With probability 95 %" in " ".join(inspected.out.split())
    tuned = call("tune", made.bundle.path, "--max-accuracy-drop", 1, "--dry-run")
    assert tuned.code == 0, tuned.err
    assert "accuracy %" in tuned.out
    precise = call("tune", made.bundle.path, "--min-precision", 0.995, "--dry-run")
    assert precise.code == 0, precise.err
    assert "With reject_below" in precise.out


def test_the_card_names_the_files_and_no_recipe(made: Made) -> None:
    card = (made.bundle.path / "README.md").read_text()
    assert markdown_text("small.onnx") in card
    assert "not trained by Offramp" in card
    assert "knowledge-distillation" not in card


def test_without_labels_the_target_is_agreement_with_the_last_network(
    made_without_labels: Made,
) -> None:
    bundle = made_without_labels.bundle
    manifest = bundle.manifest
    assert manifest.calibration.target == "agreement"
    table = load_table(bundle.path, manifest)
    assert np.array_equal(table.labels, table.logits[-1].argmax(axis=1))
    assert manifest.exits[-1].held_out.running == 100
    assert bundle.policy.certificate is not None
    assert bundle.policy.certificate.target == "agreement"
    assert "agreement with it" in made_without_labels.said
    assert "the agreement with the last network" in (bundle.path / "README.md").read_text()


def test_the_target_may_be_agreement_with_the_ensemble(given: Given, tmp_path: Path) -> None:
    done = call(
        *("cascade", *given.options, "--calibrate", given.unlabelled, "-o", tmp_path / "out"),
        *("--agree-with", "ensemble"),
    )
    assert done.code == 0, done.err
    assert "and the ensemble of all networks" in done.out
    bundle = load_bundle(tmp_path / "out")
    manifest = bundle.manifest
    assert (manifest.calibration.target, manifest.calibration.reference) == (
        "agreement",
        "ensemble",
    )
    table = load_table(bundle.path, manifest)
    weights = manifest.ensemble_weights
    assert min(weights) > 0.1
    assert np.array_equal(
        table.labels, running_ensemble(list(table.logits), 2, weights).argmax(axis=1)
    )
    assert manifest.exits[-1].held_out.running == 100
    assert bundle.policy.certificate is not None
    assert "the agreement with the ensemble" in (bundle.path / "README.md").read_text()
    inspected = " ".join(call("inspect", bundle.path).out.split())
    assert "without labels: accuracy is agreement with the ensemble" in inspected
    assert "verified. With probability 95 %" in inspected


def test_inspect_and_tune_say_that_there_were_no_labels(made_without_labels: Made) -> None:
    path = made_without_labels.bundle.path
    inspected = " ".join(call("inspect", path).out.split())
    assert "without labels: accuracy is agreement with the last network" in inspected
    assert "verified. With probability 95 %, at most 0.5 % of the answers" in inspected
    assert "accuracy is the agreement" in call("tune", path, "--dry-run").out
    refused = call("tune", path, "--min-precision", 0.9, "--dry-run")
    assert "needs labels" in refused.err


def test_a_conversion_to_int8_is_one_option(given: Given, few: Path, tmp_path: Path) -> None:
    options = ("--precision", "int8", "--allow-loss", "--allow-no-saving", "--graphs", "routed")
    done = call("cascade", *given.options, "--calibrate", few, "-o", tmp_path / "int8", *options)
    assert done.code == 0, done.err
    bundle = load_bundle(tmp_path / "int8")
    assert bundle.manifest.precision == "int8"
    images = coloured_images(5, seed=1)
    order = [CLASSES.index(label) for label in BUNDLE_LABELS]
    labels = np.repeat(np.argsort(order), 5)
    small, large = StageRunner(bundle.stages).logits(images)
    assert (small.argmax(1) == labels).mean() > 0.8
    assert (large.argmax(1) == labels).mean() > 0.8


def test_such_a_bundle_is_not_converted_by_export(made: Made, tmp_path: Path) -> None:
    done = call("export", made.bundle.path, "-o", tmp_path / "int8", "--precision", "int8")
    assert done.code == 2
    assert "offramp cascade --precision" in done.err


def test_it_needs_neither_torch_nor_anything_else_of_training(
    given: Given, few: Path, tmp_path: Path
) -> None:
    """In a process where the packages of the extra `train` besides onnx cannot be imported."""
    blocked = "torch torchvision onnxscript safetensors sklearn matplotlib tomli_w scipy"
    code = (
        f"import sys\nfor name in {blocked!r}.split(): sys.modules[name] = None\n"
        "from offramp.cli import main\nmain()"
    )
    arguments = (
        *(*given.options, "--calibrate", few, "-o", tmp_path / "out", "--allow-no-saving"),
        *("--precision", "int8", "--allow-loss"),
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "cascade", *map(str, arguments)],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
