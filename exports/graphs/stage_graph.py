"""A stage as an ONNX file, with its cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageGraph:
    """Stage k with head k: the bytes of the ONNX file, its own MACs and parameters (head included), and
    the shape (C, H, W) of its output features, None for the last stage."""

    onnx: bytes
    macs: int
    params: int
    feature_shape: tuple[int, int, int] | None
