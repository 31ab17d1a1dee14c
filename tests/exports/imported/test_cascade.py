"""ONNX classifiers that Offramp did not make become one bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from exports.bundle.reader import load_bundle, load_table
from exports.card.markup import markdown_text
from exports.stage_runner import StageRunner
from tests.commands import CommandResult, call
from tests.exports.imported.by_hand import large_logits, small_logits
from tests.exports.imported.classifiers import (
    CLASSES,
    SIDE,
    ZERO_ONE,
    pictures,
    write_classifier,
    write_pictures,
)
from tests.exports.imported.conftest import OTHER_ORDER, Given, Made

BUNDLE_LABELS = OTHER_ORDER[1:]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few pictures with labels: too few for any promise."""
    return write_pictures(tmp_path_factory.mktemp("few") / "photos", 8)


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
    images = pictures(5, seed=1)
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
    assert "% saved; accuracy" in made.said


def test_inspect_and_tune_work_on_it(made: Made) -> None:
    inspected = call("inspect", made.bundle.path)
    assert inspected.code == 0, inspected.err
    assert "importing small.onnx, large.onnx" in " ".join(inspected.out.split())
    assert "verified. With probability 95 %" in " ".join(inspected.out.split())
    tuned = call("tune", made.bundle.path, "--max-accuracy-drop", 1, "--dry-run")
    assert tuned.code == 0, tuned.err
    assert "accuracy %" in tuned.out


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
    images = pictures(5, seed=1)
    order = [CLASSES.index(label) for label in BUNDLE_LABELS]
    labels = np.repeat(np.argsort(order), 5)
    small, large = StageRunner(bundle.stages).logits(images)
    assert (small.argmax(1) == labels).mean() > 0.8
    assert (large.argmax(1) == labels).mean() > 0.8


def test_such_a_bundle_is_not_converted_by_export(made: Made, tmp_path: Path) -> None:
    done = call("export", made.bundle.path, "-o", tmp_path / "int8", "--precision", "int8")
    assert done.code == 2
    assert "offramp cascade --precision" in done.err


def refused(target: Path, *arguments: object) -> CommandResult:
    """A call that ends with one sentence and leaves nothing behind."""
    before = sorted(target.parent.iterdir())
    done = call("cascade", *arguments, "-o", target)
    assert done.code == 2, done.out
    assert len(done.err.splitlines()) == 1, done.err
    assert sorted(target.parent.iterdir()) == before
    return done


def test_a_cascade_that_saves_nothing_is_refused_with_the_figures(
    given: Given, few: Path, tmp_path: Path
) -> None:
    arguments = (*given.options, "--calibrate", few)
    done = refused(tmp_path / "out", *arguments)
    assert "the cascade saves less than 5%" in done.err
    assert "M MACs an image" in done.err
    assert "--allow-no-saving" in done.err
    assert "32 samples do not support" in done.err
    written = call("cascade", *arguments, "-o", tmp_path / "out", "--allow-no-saving")
    assert written.code == 0, written.err
    assert load_bundle(tmp_path / "out").manifest.calibration.samples == 32


def test_the_cheapest_network_must_come_first(given: Given, few: Path, tmp_path: Path) -> None:
    done = refused(
        tmp_path / "out",
        *(given.large, given.small, "--calibrate", few, "--crop", 1, "--crop", 20 / 24),
        *("--labels", given.other_labels, "--labels", given.labels),
        *("--preprocess", "zero-one", "--preprocess", "imagenet"),
    )
    assert "name the cheapest network first" in done.err


def test_labels_in_the_wrong_order_are_noticed(given: Given, few: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join((*CLASSES[1:], CLASSES[0])))
    done = call(
        *("cascade", given.small, "--calibrate", few, "-o", tmp_path / "out"),
        *("--labels", tmp_path / "labels.txt", "--preprocess", "imagenet", "--allow-no-saving"),
    )
    assert done.code == 0, done.err
    assert "is right on 0.0 % of the images, and a guess on 25.0 %: check its labels" in done.out


def test_a_network_alone_needs_labels(given: Given, tmp_path: Path) -> None:
    done = refused(
        tmp_path / "out", given.small, "--calibrate", given.unlabelled, "--labels", given.labels
    )
    assert "none to agree with" in done.err


def test_one_network_is_a_bundle_that_saves_nothing(
    given: Given, few: Path, tmp_path: Path
) -> None:
    done = call(
        *("cascade", given.small, "--calibrate", few, "-o", tmp_path / "one"),
        *("--preprocess", "imagenet", "--allow-no-saving"),
    )
    assert done.code == 0, done.err
    # The classes are the subfolders' names; the format is the first, which earlier versions read.
    manifest = load_bundle(tmp_path / "one").manifest
    assert manifest.labels == CLASSES
    assert manifest.format == 1
    assert "target" not in (tmp_path / "one" / "manifest.json").read_text()


def odd(place: Path, kind: str) -> Path:
    """A file that is no classifier of CLASSES as Offramp needs one."""
    path = place / f"{kind}.onnx"
    if kind == "no ONNX":
        path.write_bytes(b"\xff" * 100)
        return path
    if kind == "fixed":
        return write_classifier(path, batch=1, flatten=False, normal=ZERO_ONE)
    if kind == "too many outputs":
        return write_classifier(path, labels=(*CLASSES, "other"), normal=ZERO_ONE)
    model = onnx.load(write_classifier(path, normal=ZERO_ONE))
    if kind == "NaN":
        nan = onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias")
        next(t for t in model.graph.initializer if t.name == "bias").CopyFrom(nan)
    elif kind == "sigmoids":
        model.graph.node[-1].output[0] = "scores"
        model.graph.node.append(onnx.helper.make_node("Sigmoid", ["scores"], ["out"]))
    elif kind == "two outputs":
        model.graph.output.append(onnx.ValueInfoProto(name="flat"))
    elif kind == "map":
        model.graph.node[-1].output[0] = "scores"
        model.graph.node.append(onnx.helper.make_node("Identity", ["features"], ["out"]))
        model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no ONNX", "is not an ONNX file"),
        ("fixed", "export it with a dynamic batch"),
        ("too many outputs", "name it `background` in a labels file of its own"),
        ("NaN", "returns NaN or infinite values"),
        ("sigmoids", "do not sum to 1"),
        ("two outputs", "has 2 outputs (out, flat)"),
        ("map", "not one value for each class"),
    ],
)
def test_what_is_no_classifier_is_refused(
    kind: str, reason: str, few: Path, tmp_path: Path
) -> None:
    path = odd(tmp_path, kind)
    done = refused(tmp_path / "out", path, "--calibrate", few, "--preprocess", "zero-one")
    assert reason in done.err


def test_a_fixed_batch_of_1_is_freed_where_the_graph_permits(few: Path, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "fixed.onnx", batch=1, normal=ZERO_ONE)
    done = call(
        *("cascade", path, "--calibrate", few, "-o", tmp_path / "out"),
        *("--preprocess", "zero-one", "--allow-no-saving"),
    )
    assert done.code == 0, done.err


def test_an_older_opset_and_weights_beside_the_file_are_taken_in(few: Path, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "old.onnx", opset=9, normal=ZERO_ONE)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="old.data", size_threshold=0)
    assert (tmp_path / "old.data").is_file()
    done = call(
        *("cascade", path, "--calibrate", few, "-o", tmp_path / "out"),
        *("--preprocess", "zero-one", "--allow-no-saving"),
    )
    assert done.code == 0, done.err
    assert load_bundle(tmp_path / "out").manifest.exits[0].test.single == 100


def test_a_folder_that_is_no_class_is_refused(given: Given, few: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("blue\ngreen\ngrey\nwine red\n")
    done = refused(
        *(tmp_path / "out", given.small, "--calibrate", few, "--preprocess", "imagenet"),
        *("--labels", tmp_path / "labels.txt"),
    )
    assert "has the name of no class" in done.err


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
