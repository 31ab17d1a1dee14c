"""Plain sessions of onnxruntime, as on a host without Offramp that follows the guide to exporting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort

from offramp.onnx_runtime import make_int8_exact


def plain_session(graph: bytes | Path) -> Any:
    """A session for `graph` on the CPU, exact in int8 on every processor."""
    options = ort.SessionOptions()
    make_int8_exact(options)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
