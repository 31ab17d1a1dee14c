"""ONNX classifiers of colours, generated without training, and images for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

COLOURS = {
    "blue": (0.3, 0.3, 0.6),
    "green": (0.3, 0.6, 0.3),
    "grey": (0.45, 0.45, 0.45),
    "red": (0.6, 0.3, 0.3),
}
CLASSES = tuple(COLOURS)
SIDE = 32
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ZERO_ONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def write_classifier(
    path: Path,
    *,
    side: int | str = SIDE,
    layout: str = "nchw",
    normal: tuple[Sequence[float], Sequence[float]] = IMAGENET,
    labels: Sequence[str] = CLASSES,
    width: int = 4,
    probabilities: bool = False,
    batch: int | str = "n",
    error: float = 0.0,
    opset: int = 17,
    flat: Literal["free", "constant", "lost"] = "free",
    gain: float = 150.0,
) -> Path:
    """A network whose logits are those of the nearest of COLOURS: a convolution of `width` channels, the mean
    over the pixels, and a linear layer.

    `normal` are mean and deviation of its input, `labels` the order of its outputs; a label that is no
    colour is never likely. `error` displaces what it takes the colours for. The batch is `free` in the
    graph, or a `constant` of its shapes, or `lost` in a vector, so that only a batch of 1 can be run.
    """
    rng = np.random.default_rng(3)
    kernel = rng.normal(0, 0.1, (width, 3, 3, 3)).astype(np.float32)
    kernel[:3] = 0
    kernel[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    mean, std = (np.array(values) for values in normal)
    weights, bias = np.zeros((width, len(labels))), np.zeros(len(labels))
    for column, label in enumerate(labels):
        if label not in COLOURS:
            bias[column] = -50
            continue
        colour = np.array(COLOURS[label])
        colour = colour + np.random.default_rng(CLASSES.index(label)).normal(0, error, 3)
        weights[:3, column] = gain * colour * std
        bias[column] = gain * (colour @ mean - colour @ colour / 2)
    constants = {
        "kernel": kernel,
        "weights": weights.astype(np.float32),
        "bias": bias.astype(np.float32),
    }
    if flat != "free":
        constants["flat_shape"] = np.array([width] if flat == "lost" else [batch, width])
    nodes = []
    source = "pixels"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]))
        source = "planes"
    if flat == "free":
        flattened = [helper.make_node("Flatten", ["mean"], ["flat"])]
    elif flat == "constant":
        flattened = [helper.make_node("Reshape", ["mean", "flat_shape"], ["flat"])]
    else:
        flattened = [
            helper.make_node("Reshape", ["mean", "flat_shape"], ["vector"]),
            helper.make_node("Flatten", ["vector"], ["flat"], axis=0),
        ]
    last = "scores" if probabilities else "out"
    nodes += [
        helper.make_node("Conv", [source, "kernel"], ["features"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["features"], ["mean"]),
        *flattened,
        helper.make_node("Gemm", ["flat", "weights", "bias"], [last]),
    ]
    if probabilities:
        nodes.append(helper.make_node("Softmax", ["scores"], ["out"], axis=1))
    shape = [batch, 3, side, side] if layout == "nchw" else [batch, side, side, 3]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, len(labels)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def scaled(model: onnx.ModelProto, factor: float, offset: float) -> None:
    """Multiply the outputs of `model` by `factor` and add `offset`."""
    for name, value in (("factor", factor), ("offset", offset)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    model.graph.node[-1].output[0] = "scores"
    model.graph.node.append(helper.make_node("Mul", ["scores", "factor"], ["larger"]))
    model.graph.node.append(helper.make_node("Add", ["larger", "offset"], ["out"]))


def coloured_images(count: int, jitter: float = 0.05, seed: int = 0) -> NDArray[np.uint8]:
    """`count` images of each colour, uint8 [4 x count, SIDE, SIDE, 3], sorted by class."""
    rng = np.random.default_rng(seed)
    shape = (len(CLASSES), count)
    means = np.array([COLOURS[name] for name in CLASSES])[:, None] + rng.normal(
        0, jitter, (*shape, 3)
    )
    noise = rng.normal(0, 0.1, (*shape, SIDE, SIDE, 3))
    pixels = np.clip(255 * (means[:, :, None, None] + noise), 0, 255)
    return pixels.astype(np.uint8).reshape(-1, SIDE, SIDE, 3)


def write_images(folder: Path, count: int, labelled: bool = True, seed: int = 0) -> Path:
    """`count` images of each colour as files of the bundle's size, in a subfolder per class or, without
    labels, in none."""
    for number, pixels in enumerate(coloured_images(count, seed=seed)):
        name = CLASSES[number // count]
        file = folder / name / f"{number:05}.png" if labelled else folder / f"{number:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, compress_level=1)
    return folder
