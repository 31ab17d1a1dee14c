"""Versions of a bundle with a fault, made by a few nodes after the logits of a stage."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, helper, numpy_helper

LOGITS, RAW = "logits", "raw_logits"
# A product of so many matrices of this size takes several times as long as a stage of a small network.
SIDE, PRODUCTS = 512, 2


def fails(graph: GraphProto) -> None:
    """The logits are NaN."""
    _constant(graph, "fault_nan", np.array(np.nan, np.float32))
    graph.node.append(helper.make_node("Mul", [RAW, "fault_nan"], [LOGITS]))


def is_slow(graph: GraphProto) -> None:
    """The logits are right, but come later."""
    random = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(random.normal(size=(SIDE, SIDE)))
    _constant(graph, "fault_rotation", rotation.astype(np.float32))
    _constant(graph, "fault_zero", np.array(0, np.float32))
    # Of the logits, so that it cannot be computed beforehand.
    graph.node.append(helper.make_node("ReduceMean", [RAW], ["fault_mean"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["fault_rotation", "fault_mean"], ["fault_turned0"]))
    for number in range(PRODUCTS):
        product = ["fault_rotation", f"fault_turned{number}"], [f"fault_turned{number + 1}"]
        graph.node.append(helper.make_node("MatMul", *product))
    graph.node.append(
        helper.make_node("ReduceMean", [f"fault_turned{PRODUCTS}"], ["fault_last"], keepdims=0)
    )
    graph.node.append(helper.make_node("Mul", ["fault_last", "fault_zero"], ["fault_nothing"]))
    graph.node.append(helper.make_node("Add", [RAW, "fault_nothing"], [LOGITS]))


def disagrees(graph: GraphProto) -> None:
    """Every class has the logit of the one before."""
    output = next(value for value in graph.output if value.name == LOGITS)
    classes = output.type.tensor_type.shape.dim[1].dim_value
    order = np.roll(np.arange(classes), 1)
    _constant(graph, "fault_order", order.astype(np.int64))
    graph.node.append(helper.make_node("Gather", [RAW, "fault_order"], [LOGITS], axis=1))


def new_version(
    bundle: Path, path: Path, version: str, stage: int, change: Callable[[GraphProto], None] | None
) -> Path:
    """A copy of `bundle` in `path` as `version`, whose stage `stage` has the fault that `change` makes, if
    any."""
    shutil.copytree(bundle, path)
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    manifest["version"] = version
    if change is not None:
        entry = manifest["exits"][stage - 1]
        model = onnx.load(path / entry["file"])
        for node in model.graph.node:
            for number, name in enumerate(node.output):
                if name == LOGITS:
                    node.output[number] = RAW
        change(model.graph)
        onnx.save(model, path / entry["file"])
        entry["sha256"] = hashlib.sha256((path / entry["file"]).read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return path


def _constant(graph: GraphProto, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))
