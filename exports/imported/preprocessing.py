"""What a network expects of an image, applied with numpy and written as ONNX nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exports.bundle.reader import IMAGE
from exports.graphs.upsample import PRODUCT
from exports.imported.resampling import Interpolation, crop_start, resampling_matrix

Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr"]
Triple = tuple[float, float, float]

# The prefix of every name that is added to a network's graph. Matrix products have that of `PRODUCT`,
# which quantisation skips.
PREFIX = "offramp."


@dataclass(frozen=True)
class Preprocessing:
    """How a network's input is made of the bundle's square image.

    The image is resized to `resized` pixels a side and its central `side` pixels are kept. A pixel x in
    0..255 becomes (x - mean) / std; `mean` and `std` are of red, green and blue, whatever the order of
    `channels` in the network's input. `half` networks take float16, others float32.
    """

    side: int
    resized: int
    interpolation: Interpolation
    layout: Layout
    channels: Channels
    mean: Triple
    std: Triple
    half: bool = False

    def __str__(self) -> str:
        """In one line, for people."""
        crop = "" if self.resized == self.side else f" of {self.resized} ({self.interpolation})"
        mean, std = (
            ", ".join(f"{value / 255:.3g}" for value in values) for values in (self.mean, self.std)
        )
        return (
            f"{self.side} x {self.side}{crop}, {self.layout.upper()}, {self.channels.upper()}, "
            f"mean {mean}, deviation {std}"
        )

    def apply(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """The network's input for images uint8 [N, S, S, 3]."""
        source = images.shape[1]
        if source == self.resized:
            start = crop_start(source, self.side)
            kept = slice(start, start + self.side)
            pixels = images[:, kept, kept].astype(np.float32)
        else:
            matrix = resampling_matrix(source, self.resized, self.side, self.interpolation)
            pixels = np.einsum("ih,nhwc,jw->nijc", matrix, images, matrix, optimize=True)
            pixels = np.clip(pixels, 0, 255)
        values = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.channels == "bgr":
            values = values[..., ::-1]
        if self.layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values, np.float16 if self.half else np.float32)

    def nodes(self, source: int, target: str) -> tuple[list[NodeProto], list[TensorProto]]:
        """The nodes, with their constants, from the image uint8 [N, S, S, 3], S = `source`, to the tensor
        `target`, the network's input."""
        chain = _Chain()
        resizes = source != self.resized
        if not resizes and self.side != source:
            start = crop_start(source, self.side)
            ends = np.full(2, start + self.side)
            chain.add("Slice", "cropped", np.full(2, start), ends, np.array([1, 2]))
        if self.channels == "bgr":
            chain.add("Gather", "reordered", np.array([2, 1, 0]), axis=3)
        chain.add("Cast", "pixels", to=TensorProto.FLOAT)
        planes = resizes or self.layout == "nchw"
        if planes:
            chain.add("Transpose", "planes", perm=[0, 3, 1, 2])
        if resizes:
            matrix = resampling_matrix(source, self.resized, self.side, self.interpolation)
            chain.add("MatMul", "columns", np.ascontiguousarray(matrix.T))
            chain.add("MatMul", "rows", matrix, constants_first=True)
            chain.add("Clip", "clipped", np.float32(0), np.float32(255))
        shape = (1, 3, 1, 1) if planes else (1, 1, 1, 3)
        mean, std = (
            np.array(values[::-1] if self.channels == "bgr" else values, np.float32).reshape(shape)
            for values in (self.mean, self.std)
        )
        chain.add("Sub", "centred", mean)
        chain.add("Div", "normalised", std)
        if planes and self.layout == "nhwc":
            chain.add("Transpose", "pixels_last", perm=[0, 2, 3, 1])
        chain.finish(target, TensorProto.FLOAT16 if self.half else TensorProto.FLOAT)
        return chain.nodes, chain.constants


class _Chain:
    """Nodes in a row from the image, each of which takes the output of the one before."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._last = IMAGE

    def add(
        self,
        kind: str,
        output: str,
        *constants: Any,
        constants_first: bool = False,
        **attributes: Any,
    ) -> None:
        """A node whose inputs are the last output and `constants`."""
        names = [f"{PREFIX}{output}.{position}" for position in range(len(constants))]
        for name, value in zip(names, constants, strict=True):
            self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        inputs = [*names, self._last] if constants_first else [self._last, *names]
        node_name = f"{PRODUCT if kind == 'MatMul' else PREFIX}{output}"
        self._last = f"{PREFIX}{output}"
        self.nodes.append(
            helper.make_node(kind, inputs, [self._last], name=node_name, **attributes)
        )

    def finish(self, target: str, type_: int) -> None:
        """The last node, whose output is `target` of the given type."""
        name = f"{PREFIX}input"
        self.nodes.append(helper.make_node("Cast", [self._last], [target], name=name, to=type_))
