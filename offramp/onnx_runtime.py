"""onnxruntime, imported on first use and with only errors logged."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from offramp.extras import needs_extra

ERRORS_ONLY = 3


def load_onnxruntime() -> Any:
    """The module onnxruntime. Raises MissingExtraError if neither extra `cpu` nor `gpu` is installed."""
    with needs_extra("cpu", "onnxruntime"):
        import onnxruntime

    return onnxruntime


def session_errors() -> tuple[type[Exception], ...]:
    """What creating or running a session raises. Raises MissingExtraError without onnxruntime."""
    load_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # Their only common base is Exception.
    return (
        state.EPFail,
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


def session_options() -> Any:
    """Options of a session that logs only errors. Raises MissingExtraError without onnxruntime.

    Layers that an int8 stage keeps in float32 stay so: onnxruntime would give those between quantised
    tensors int8 weights with one scale for all channels, which ruins depthwise convolutions.
    """
    options = load_onnxruntime().SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry(
        "optimization.disable_specified_optimizers", "WeightBiasQuantization"
    )
    make_int8_exact(options)
    return options


def make_int8_exact(options: Any) -> None:
    """Where sums saturate, let a session with `options` turn int8 weights into uint8, which is exact and
    slower. onnxruntime would do so on processors with VNNI too."""
    if sums_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")


def sums_saturate(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor is x86 without VNNI, or may be: it adds two products of uint8 and int8 in 16
    bits, which saturate, and answers are wrong."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not cpuinfo.is_file():
        return True
    lines = cpuinfo.read_text("utf-8").splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not {"avx512_vnni", "avx_vnni"} & set(flags.split())
