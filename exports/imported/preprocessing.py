"""A network's preprocessing written as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exports.bundle.preprocessing.resampling import crop_start, resampling_matrix
from exports.bundle.preprocessing.spec import Preprocessing
from exports.bundle.reader import IMAGE
from exports.graphs.upsample import PRODUCT

# The prefix of every name that is added to a network's graph. Matrix products have that of `PRODUCT`,
# which quantisation skips.
PREFIX = "offramp."
# Mean and deviation of a network that takes pixels as they are.
IDENTITY = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def preprocessing_nodes(
    own: Preprocessing, source: int, target: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes, with their constants, that do what `own.apply` does: from the image uint8 [N, S, S, 3],
    S = `source`, to the tensor `target`, the network's input."""
    chain = _Chain()
    resizes = source != own.resized
    if not resizes and own.side != source:
        start = crop_start(source, own.side)
        ends = np.full(2, start + own.side)
        chain.add("Slice", "cropped", np.full(2, start), ends, np.array([1, 2]))
    if own.channels == "bgr":
        chain.add("Gather", "reordered", np.array([2, 1, 0]), axis=3)
    chain.add("Cast", "pixels", to=TensorProto.FLOAT)
    planes = resizes or own.layout == "nchw"
    if planes:
        chain.add("Transpose", "planes", perm=[0, 3, 1, 2])
    if resizes:
        matrix = resampling_matrix(source, own.resized, own.side, own.interpolation)
        chain.add("MatMul", "columns", np.ascontiguousarray(matrix.T))
        chain.add("MatMul", "rows", matrix, constants_first=True)
        chain.add("Clip", "clipped", np.float32(0), np.float32(255))
    if own.whole:
        chain.add("Round", "rounded")
    if (own.mean, own.std) != IDENTITY:
        chain.add("Sub", "centred", _per_channel(own.mean, own, planes))
        chain.add("Div", "normalised", _per_channel(own.std, own, planes))
    if planes and own.layout == "nhwc":
        chain.add("Transpose", "pixels_last", perm=[0, 2, 3, 1])
    kind = (
        TensorProto.UINT8 if own.whole else TensorProto.FLOAT16 if own.half else TensorProto.FLOAT
    )
    chain.finish(target, kind)
    return chain.nodes, chain.constants


def _per_channel(values: Sequence[float], own: Preprocessing, planes: bool) -> NDArray[np.float32]:
    """`values` of the channels, repeated for every column: see `Normalize.repeated`."""
    ordered = np.array(values[::-1] if own.channels == "bgr" else values, np.float32)
    if planes:
        return np.tile(ordered.reshape(1, 3, 1, 1), (1, 1, 1, own.side))
    return np.tile(ordered, (1, 1, own.side, 1))


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
