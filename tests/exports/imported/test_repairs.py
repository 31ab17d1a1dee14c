"""What `offramp cascade` accepts though exporters write it in unusual ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import onnx
import pytest

from exports.bundle.reader import load_bundle, load_table
from tests.commands import call
from tests.exports.imported.classifiers import CLASSES, SIDE, ZERO_ONE, scaled, write_classifier


@pytest.mark.parametrize(("batch", "flat"), [(1, "free"), (1, "constant"), (2, "constant")])
def test_a_fixed_batch_is_freed_where_the_graph_permits(
    batch: int, flat: Literal["free", "constant"], few: Path, tmp_path: Path
) -> None:
    path = write_classifier(tmp_path / "fixed.onnx", batch=batch, flat=flat, normal=ZERO_ONE)
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


def test_axes_that_an_exporter_leaves_free_are_free(few: Path, tmp_path: Path) -> None:
    """The batch is -1, height and width have names: the axis of size 3 has the colours."""
    path = write_classifier(tmp_path / "free.onnx", side="side", normal=ZERO_ONE)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(model, path)
    done = call(
        *("cascade", path, "--calibrate", few, "-o", tmp_path / "out"),
        *("--preprocess", "zero-one", "--size", 32, "--allow-no-saving"),
    )
    assert done.code == 0, done.err
    assert load_bundle(tmp_path / "out").manifest.exits[0].test.single == 100


def test_logits_far_from_zero_are_calibrated_as_those_at_zero(few: Path, tmp_path: Path) -> None:
    model = onnx.load(write_classifier(tmp_path / "far.onnx", normal=ZERO_ONE))
    scaled(model, 1, 20_000)
    onnx.save(model, tmp_path / "far.onnx")
    done = call(
        *("cascade", tmp_path / "far.onnx", "--calibrate", few, "-o", tmp_path / "out"),
        *("--preprocess", "zero-one", "--allow-no-saving"),
    )
    assert done.code == 0, done.err
    manifest = load_bundle(tmp_path / "out").manifest
    assert manifest.exits[0].held_out.single == 100
    table = load_table(tmp_path / "out", manifest)
    assert (table.logits.max(axis=2) == 0).all()


def test_a_byte_order_mark_is_no_part_of_a_label_or_a_configuration(
    few: Path, tmp_path: Path
) -> None:
    path = write_classifier(tmp_path / "network.onnx", normal=ZERO_ONE)
    config = {"input_size": [3, SIDE, SIDE], "mean": [0, 0, 0], "std": [1, 1, 1]}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8-sig")
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES), "utf-8-sig")
    done = call(
        *("cascade", path, "--calibrate", few, "-o", tmp_path / "out", "--allow-no-saving"),
        *("--labels", tmp_path / "labels.txt"),
    )
    assert done.code == 0, done.err
    assert load_bundle(tmp_path / "out").manifest.labels == CLASSES
