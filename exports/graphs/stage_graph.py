"""A stage as an ONNX file, with its cost."""

from __future__ import annotations

from dataclasses import dataclass

from exports.bundle.manifest import StageInput


@dataclass(frozen=True)
class StageGraph:
    """Stage k with head k: the bytes of the ONNX file, what it takes, its own MACs and parameters (head
    included), and the shape (C, H, W) of its output features, None if no stage takes them."""

    onnx: bytes
    input: StageInput
    macs: int
    params: int
    feature_shape: tuple[int, int, int] | None
