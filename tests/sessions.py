"""Plain sessions of onnxruntime, as on a host without Offramp that follows the guide to exporting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort


def plain_session(graph: bytes | Path) -> Any:
    """A session for `graph` on the CPU, exact in int8 on every processor."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
