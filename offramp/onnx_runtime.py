"""onnxruntime, imported on first use and with only errors logged."""

from __future__ import annotations

from typing import Any

from offramp.extras import needs_extra

ERRORS_ONLY = 3


def load_onnxruntime() -> Any:
    """The module onnxruntime. Raises MissingExtraError if neither extra `cpu` nor `gpu` is installed."""
    with needs_extra("cpu", "onnxruntime"):
        import onnxruntime

    return onnxruntime


def session_options() -> Any:
    """Options of a session that logs only errors. Raises MissingExtraError without onnxruntime."""
    options = load_onnxruntime().SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    return options
