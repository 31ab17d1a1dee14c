"""Sessions of onnxruntime compute int8 exactly on every processor."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from offramp.onnx_runtime import load_onnxruntime, session_options, sums_saturate

CHANNELS, OUTPUTS = 64, 16
LARGEST = 127


def convolution(weight: int) -> bytes:
    """A quantised 1x1 convolution of uint8 [1, CHANNELS, 4, 4] whose weights are all `weight`. An input of
    255 everywhere gives 255, if it is summed exactly."""
    names = ("x_scale", "x_zero", "weight", "w_scale", "w_zero", "y_scale", "y_zero")
    scale = float(CHANNELS * weight)
    constants = (
        helper.make_tensor("x_scale", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("x_zero", TensorProto.UINT8, [], [0]),
        helper.make_tensor(
            "weight", TensorProto.INT8, [OUTPUTS, CHANNELS, 1, 1], [weight] * (OUTPUTS * CHANNELS)
        ),
        helper.make_tensor("w_scale", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("w_zero", TensorProto.INT8, [], [0]),
        helper.make_tensor("y_scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("y_zero", TensorProto.UINT8, [], [0]),
    )
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", ["x", *names], ["y"])],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, CHANNELS, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, OUTPUTS, 4, 4])],
        list(constants),
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize("weight", [1, LARGEST])
def test_sums_of_uint8_and_int8_do_not_saturate(weight: int) -> None:
    """Two products of 255 and 127 are more than 16 bits hold, as processors without VNNI would add them."""
    runtime = load_onnxruntime()
    session = runtime.InferenceSession(
        convolution(weight), session_options(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": np.full((1, CHANNELS, 4, 4), 255, np.uint8)})
    assert (found == 255).all()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fma avx2", True), ("avx2 avx512_vnni", False), ("avx2 avx_vnni", False)],
)
def test_only_x86_without_vnni_needs_other_weights(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name : x\nflags\t\t: {flags}\n")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert sums_saturate(cpuinfo) == expected
    assert sums_saturate(tmp_path / "absent")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not sums_saturate(cpuinfo)
