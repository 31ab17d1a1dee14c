"""Writes two ONNX classifiers of colours, their labels and images, to try `offramp cascade` on.

    python examples/draw_networks.py DIRECTORY

The networks are not trained: a convolution and a linear layer whose weights follow from the colours. Needs
numpy, onnx and Pillow.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

COLOURS = {
    "blue": (0.3, 0.3, 0.6),
    "green": (0.3, 0.6, 0.3),
    "grey": (0.45, 0.45, 0.45),
    "red": (0.6, 0.3, 0.3),
}
IMAGES = 250  # of each colour
SIDE = 32
GAIN = 150.0


def main(directory: Path) -> None:
    """Write `small.onnx`, `large.onnx`, their labels, and `photos/COLOUR/*.png`."""
    directory.mkdir(parents=True)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    small, large = list(COLOURS), ["background", "red", "grey", "blue", "green"]
    planes = network(small, 4, mean, std, error=0.01)
    save(directory / "small.onnx", planes, ["batch", 3, 24, 24], len(small))
    pixels_last = network(large, 256, (0, 0, 0), (1, 1, 1), pixels_last=True)
    save(directory / "large.onnx", pixels_last, ["batch", SIDE, SIDE, 3], len(large))
    (directory / "labels.txt").write_text("\n".join(small) + "\n")
    (directory / "large-labels.txt").write_text("\n".join(large) + "\n")
    draw(directory / "photos")


def network(labels, width, mean, std, error=0.0, pixels_last=False):
    """Nodes and constants of a classifier by the nearest colour, which is linear in the mean colour."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.1, (width, 3, 3, 3))
    kernel[:3] = 0
    kernel[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    weights, bias = np.zeros((width, len(labels))), np.full(len(labels), -50.0)
    for column, label in enumerate(labels):
        if label in COLOURS:
            colour = np.array(COLOURS[label]) + rng.normal(0, error, 3)
            weights[:3, column] = GAIN * colour * np.array(std)
            bias[column] = GAIN * (colour @ np.array(mean) - colour @ colour / 2)
    source = "planes" if pixels_last else "pixels"
    nodes = [
        helper.make_node("Conv", [source, "kernel"], ["features"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["features"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["scores"]),
    ]
    if pixels_last:
        nodes.insert(0, helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Softmax", ["scores"], ["out"], axis=1))
    else:
        nodes.append(helper.make_node("Identity", ["scores"], ["out"]))
    constants = {"kernel": kernel, "weights": weights, "bias": bias}
    return nodes, [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    ]


def save(path, content, shape, classes):
    """Write the file of a network."""
    nodes, constants = content
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", classes])],
        constants,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )


def draw(folder):
    """Noisy images of each colour, some of them near another colour."""
    rng = np.random.default_rng(1)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(IMAGES):
            tint = np.array(colour) + rng.normal(0, 0.05, 3)
            pixels = np.clip(255 * (tint + rng.normal(0, 0.1, (SIDE, SIDE, 3))), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:04}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
