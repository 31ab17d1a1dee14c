"""A multi-exit network of colours as a bundle, made without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exports.bundle.manifest import InputSpec
from exports.bundle.reader import stage_input, stage_outputs
from exports.evaluation_data import EvaluationData
from exports.graphs.stage_graph import StageGraph
from exports.options import ExportOptions
from exports.pipeline import write_bundle
from exports.source import Source
from exports.tuning.certificate import divide
from offramp.files import new_directory
from tests.exports.imported.classifiers import CLASSES, COLOURS, coloured_images
from training.data.dataset import Split

SIDE = 16
EXITS = 3
WIDTH = 4
RECIPE = {
    "name": "colours",
    "network": {"name": "resnet", "width": 8},
    "objective": {"method": "oto"},
    "train": {"epochs": 1},
}


def stage(number: int) -> StageGraph:
    """Stage `number`: a convolution that keeps the colours, and the nearest of COLOURS as its head, which
    takes them for slightly other colours."""
    first, last = number == 1, number == EXITS
    name = stage_input(number, "image" if first else "features")
    outputs = stage_outputs(number, not last)
    features = "last" if last else outputs[0]
    width = 3 if first else WIDTH
    kernel = np.zeros((WIDTH, width, 3, 3), np.float32)
    for channel in range(3):
        kernel[channel, channel, 1, 1] = 1
    error = np.random.default_rng(number).normal(0, 0.004, (len(CLASSES), 3))
    colours = np.array([COLOURS[label] for label in CLASSES]) + error
    weights = np.zeros((WIDTH, len(CLASSES)), np.float32)
    weights[:3] = 150 * colours.T
    constants = {
        "kernel": kernel,
        "weights": weights,
        "bias": (-75 * (colours**2).sum(axis=1)).astype(np.float32),
        "scale": np.float32(255),
    }
    nodes, source = [], name
    if first:
        nodes = [
            helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["pixels", "scale"], ["unit"]),
            helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        source = "planes"
    nodes += [
        helper.make_node("Conv", [source, "kernel"], ["raw"], pads=[1] * 4),
        helper.make_node("Relu", ["raw"], [features]),
        helper.make_node("GlobalAveragePool", [features], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
    ]
    shape = ["n", SIDE, SIDE, 3] if first else ["n", WIDTH, SIDE, SIDE]
    kind = TensorProto.UINT8 if first else TensorProto.FLOAT
    shapes = {"logits": ["n", len(CLASSES)]}
    graph = helper.make_graph(
        nodes,
        f"stage{number}",
        [helper.make_tensor_value_info(name, kind, shape)],
        [
            helper.make_tensor_value_info(
                output, TensorProto.FLOAT, shapes.get(output, ["n", WIDTH, SIDE, SIDE])
            )
            for output in outputs
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return StageGraph(
        model.SerializeToString(),
        "image" if first else "features",
        macs=WIDTH * width * 9 * SIDE * SIDE + WIDTH * len(CLASSES),
        params=kernel.size + weights.size + len(CLASSES),
        feature_shape=None if last else (WIDTH, SIDE, SIDE),
    )


def write_multi_exit(path: Path) -> Path:
    """A bundle of three stages for images of 16 pixels and CLASSES in alphabetical order."""
    images = coloured_images(10, seed=2)[:, ::2, ::2]
    split = Split(np.ascontiguousarray(images), np.repeat(np.arange(len(CLASSES)), 10))
    _, unused = divide(len(split))
    stages = tuple(stage(number) for number in range(1, EXITS + 1))
    source = Source(
        name="colours",
        version="1",
        labels=CLASSES,
        input=InputSpec(height=SIDE, width=SIDE),
        stages=stages,
        calibrated=stages,
        data=EvaluationData(
            "colours", split, split.take(unused), {"train": 0, "held_out": len(split), "test": 0}
        ),
        recipe=RECIPE,
        followers=(),
        seed=7,
        tools={},
    )
    with new_directory(path) as folder:
        write_bundle(folder, source, path, ExportOptions(), lambda _: None)
    return path
