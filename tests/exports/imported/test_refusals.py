"""What `offramp cascade` refuses, with one sentence and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from exports.bundle.reader import load_bundle
from tests.commands import CommandResult, call
from tests.exports.imported.classifiers import CLASSES, ZERO_ONE, scaled, write_classifier
from tests.exports.imported.conftest import Given

GOOD = ("0.485,0.456,0.406", "0.229,0.224,0.225")


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
        *("--labels", tmp_path / "labels.txt", "--allow-no-saving"),
        *("--mean", GOOD[0], "--std", GOOD[1]),
    )
    assert done.code == 0, done.err
    assert "mean 0.485, 0.456, 0.406, deviation 0.229, 0.224, 0.225 (--mean and --std)" in done.out
    assert "is right on 0.0 % of the images, and a guess on 25.0 %: check its labels" in done.out


def test_a_network_alone_needs_labels(given: Given, tmp_path: Path) -> None:
    done = refused(
        tmp_path / "out", given.small, "--calibrate", given.unlabelled, "--labels", given.labels
    )
    assert "none to agree with" in done.err


def test_agreement_is_for_images_without_labels(given: Given, few: Path, tmp_path: Path) -> None:
    done = refused(
        *(tmp_path / "out", *given.options, "--calibrate", few, "--agree-with", "ensemble")
    )
    assert "--agree-with is for images without labels" in done.err


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


def calls_itself(model: onnx.ModelProto) -> None:
    """Let the output of `model` come from a function that calls itself."""
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("own", 1)]
    again = onnx.helper.make_node("F", ["x"], ["y"], domain="own")
    model.functions.append(onnx.helper.make_function("own", "F", ["x"], ["y"], [again], opsets))
    model.opset_import.append(opsets[1])
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.append(onnx.helper.make_node("F", ["scores"], ["out"], domain="own"))


def odd(place: Path, kind: str) -> Path:
    """A file that is no classifier of CLASSES as Offramp needs one."""
    path = place / f"{kind}.onnx"
    if kind == "no ONNX":
        path.write_bytes(b"\xff" * 100)
        return path
    if kind == "fixed":
        return write_classifier(path, batch=1, flat="lost", normal=ZERO_ONE)
    if kind == "too many outputs":
        return write_classifier(path, labels=(*CLASSES, "other"), normal=ZERO_ONE)
    model = onnx.load(write_classifier(path, normal=ZERO_ONE))
    if kind == "NaN":
        nan = onnx.numpy_helper.from_array(np.full(4, np.nan, np.float32), "bias")
        next(t for t in model.graph.initializer if t.name == "bias").CopyFrom(nan)
    elif kind == "sigmoids":
        model.graph.node[-1].output[0] = "scores"
        model.graph.node.append(onnx.helper.make_node("Sigmoid", ["scores"], ["out"]))
    elif kind == "far apart":
        scaled(model, 1e6, 0)
    elif kind == "unknown type":
        model.graph.input[0].type.tensor_type.elem_type = 77
    elif kind == "huge batch":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1_000_000
    elif kind == "recursive":
        calls_itself(model)
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
        ("far apart", "far apart.onnx returns values up to"),
        ("unknown type", "takes the unknown type 77 of 4 axes"),
        ("huge batch", "is made for batches of 1000000"),
        ("recursive", "has functions of its own that cannot be inlined"),
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


def test_more_logits_than_a_bundle_may_have_are_refused_before_they_are_computed(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_classifier(tmp_path / "given" / "network.onnx", normal=ZERO_ONE)
    monkeypatch.setattr("exports.pipeline.MAX_TABLE_LOGITS", 80)
    monkeypatch.delattr("exports.pipeline.measure")
    options = ("--calibrate", few, "--preprocess", "zero-one", "--allow-no-saving")
    done = refused(tmp_path / "out", path, *options)
    assert "32 images are too many for a calibration table of 1 exits and 4 classes" in done.err


def test_a_label_with_a_line_end_is_refused_in_one_line(
    given: Given, few: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(["a\nb", *CLASSES[1:]]))
    for photos in (few, given.unlabelled):
        done = refused(
            tmp_path / "out",
            *(given.small, given.large, "--calibrate", photos, "--preprocess", "zero-one"),
            *("--labels", given.labels, "--labels", tmp_path / "labels.json"),
        )
        assert "a b" in done.err


def test_a_folder_that_is_no_class_is_refused(given: Given, few: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("blue\ngreen\ngrey\nwine red\n")
    done = refused(
        *(tmp_path / "out", given.small, "--calibrate", few, "--preprocess", "imagenet"),
        *("--labels", tmp_path / "labels.txt"),
    )
    assert "has the name of no class" in done.err


@pytest.mark.parametrize(
    ("mean", "std", "reason"),
    [
        ("0.485,0.456", GOOD[1], "--mean takes three numbers with commas, for red, green and blue"),
        ("0.485;0.456;0.406", GOOD[1], "--mean takes three numbers with commas"),
        ("0.485,green,0.406", GOOD[1], "--mean takes numbers, and 'green' is none"),
        ("nan,0.456,0.406", GOOD[1], "--mean takes finite numbers, not nan"),
        ("-0.1,0.456,0.406", GOOD[1], "--mean takes numbers of at least 0, not -0.1"),
        ("123.7,116.3,103.5", GOOD[1], "not 123.7: divide values for 0 to 255 by 255"),
        (GOOD[0], "0.229,0,0.225", "--std takes numbers of at least 0.0001, not 0"),
        (GOOD[0], "0.2,0.2,0.2,0.2", "--std takes three numbers"),
        (GOOD[0], None, "--mean is given 1 times and --std 0 times: give both"),
        (None, GOOD[1], "--mean is given 0 times and --std 1 times: give both"),
    ],
)
def test_a_bad_mean_or_deviation_is_one_sentence(
    mean: str | None, std: str | None, reason: str, given: Given, few: Path, tmp_path: Path
) -> None:
    options = [(f"--{name}={text}") for name, text in (("mean", mean), ("std", std)) if text]
    done = refused(tmp_path / "out", given.small, "--calibrate", few, *options)
    assert reason in done.err


def test_a_mean_beside_a_preset_is_refused(given: Given, few: Path, tmp_path: Path) -> None:
    numbers = ("--mean", GOOD[0], "--std", GOOD[1])
    done = refused(
        *(tmp_path / "out", given.small, "--calibrate", few),
        *("--preprocess", "zero-one", *numbers),
    )
    assert "--preprocess zero-one is a mean and a deviation, as --mean and --std are" in done.err
    three = refused(
        *(tmp_path / "out", given.small, given.large, "--calibrate", few, *numbers * 3),
    )
    assert "--mean is given 3 times for 2 networks" in three.err
