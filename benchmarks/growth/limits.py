"""How far rates are from what the processor could do: its fastest matrix product, and the stages alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from benchmarks.growth.in_process import calls
from benchmarks.harness.generator import load
from benchmarks.harness.images import Images
from benchmarks.harness.server import halves, on_cores, serving
from benchmarks.serving import FULL_DEPTH, InProcess, closed
from benchmarks.threads import throughput
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.inference.sessions import session_options

# Of the matrix product: large enough for the processor's peak, small enough for its second-level cache.
SIDE = 384


def measure(bundle: Bundle, images: Images, seconds: float) -> dict[str, float]:
    """Images a second at full depth on one core: `arithmetic`, the bundle's multiply-accumulates at the rate
    of the fastest product; `stages` in a chain, batches of 16; `stages_one`, one image at a time; `decoded`,
    with decoding; and `http`. `giga_macs` is the rate of that product."""
    server_cores, load_cores = halves()
    core = server_cores[:1]
    engine = Engine(bundle)
    policy = bundle.policy.override(mode="ensemble", max_exit=engine.exits)
    spec = bundle.manifest.input
    batch = np.zeros((16, spec.height, spec.width, 3), np.uint8)
    with on_cores(core):
        peak = fastest_product(bundle.manifest.precision == "int8", seconds)
        found = {
            "giga_macs": peak / 1e9,
            "arithmetic": peak / bundle.manifest.exits[-1].macs,
            "stages": 16 * _rate(lambda: engine.classify(batch, policy), seconds),
            "stages_one": _rate(lambda: engine.classify(batch[:1], policy), seconds),
            "decoded": _rate(InProcess(engine, policy, images.files), seconds),
        }
    with serving(bundle.path, cores=core) as (port, _):
        load(port, images.packed, seconds / 4, *closed(FULL_DEPTH), cores=load_cores)
        report = load(port, images.packed, seconds, *closed(FULL_DEPTH), cores=load_cores)
    found["http"] = len(report["latencies"]) / report["seconds"]
    return found


def fastest_product(int8: bool, seconds: float) -> float:
    """Multiply-accumulates a second of a square matrix product in onnxruntime, one thread."""
    kind, output = (
        (TensorProto.UINT8, TensorProto.INT32) if int8 else (TensorProto.FLOAT, TensorProto.FLOAT)
    )
    weights = np.ones((SIDE, SIDE), np.int8 if int8 else np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger" if int8 else "MatMul", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", kind, [SIDE, SIDE])],
        [helper.make_tensor_value_info("c", output, [SIDE, SIDE])],
        [
            helper.make_tensor(
                "b",
                TensorProto.INT8 if int8 else TensorProto.FLOAT,
                weights.shape,
                weights.tobytes(),
                raw=True,
            )
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="offramp"
    )
    session = ort.InferenceSession(model.SerializeToString(), session_options(ort, 1, "own"))
    feed = {"a": np.ones((SIDE, SIDE), np.uint8 if int8 else np.float32)}
    return SIDE**3 * _rate(lambda: session.run(None, feed), seconds)


def _rate(work: Callable[[], object], seconds: float) -> float:
    return throughput(work, 1, calls(work, seconds))
