"""A stage as an ONNX file, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageGraph:
    """Stage k with head k: the ONNX file's bytes, its own MACs and parameters (head included),
    and the shape (C, H, W) of the features it hands on, None for the last."""

    onnx: bytes
    macs: int
    params: int
    feature_shape: tuple[int, int, int] | None
