"""Stages in int8, for comparison with those they were made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from exports.precision.quantize import prepare_all, quantize
from exports.stage_runner import StageRunner


def int8_stages(
    stages: Sequence[bytes], images: NDArray[np.uint8], *, keep_depthwise: bool = False
) -> list[bytes]:
    """The float32 `stages` in int8, their ranges set by `images` [N, H, W, 3].

    With `keep_depthwise` the depthwise convolutions stay in float32.
    """
    made = []
    for ready in prepare_all(stages, images):
        nodes = ready.model.graph.node
        kept = frozenset(node.name for node in nodes if keep_depthwise and _is_depthwise(node))
        made.append(quantize(ready, "u8s8", kept))
    return made


def _is_depthwise(node: NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)


def correlations(
    stages: Sequence[bytes], others: Sequence[bytes], images: NDArray[np.uint8]
) -> list[float]:
    """How the logits of both networks correlate at every exit, each class about its own mean."""
    both = (StageRunner(graphs, threads=1).logits(images) for graphs in (stages, others))
    first, second = (logits - logits.mean(axis=1, keepdims=True) for logits in both)
    return [
        float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(first, second, strict=True)
    ]
