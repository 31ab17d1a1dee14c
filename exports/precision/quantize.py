"""One stage in int8 or fp16. Static quantisation with onnxruntime: QDQ nodes, a scale per channel.

A stage keeps its names and types: `image` uint8 in, features and logits float32 out. In int8 the logits
are as the last layer gives them, and `edges` makes the features what they are inside the stages.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationDataReader, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from exports.bundle.reader import stage_input
from exports.graphs.onnx_tools import serialised
from exports.graphs.upsample import PRODUCT
from exports.precision.boundaries import unrounded
from exports.stage_runner import StageRunner

Scheme = Literal["u8s8", "s8s8"]
ACTIVATIONS = {"u8s8": QuantType.QUInt8, "s8s8": QuantType.QInt8}
WEIGHTED = ("Conv", "Gemm", "MatMul")
# What has an int8 kernel worth having. A batch norm that could not be folded stays in float32.
QUANTISED = (
    *WEIGHTED,
    *("Add", "Mul", "Relu", "Clip", "Sigmoid", "Concat", "Resize"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose"),
)
BATCH = 32


@dataclass(frozen=True)
class Prepared:
    """A float32 stage made ready: simplified, its shapes known, and every tensor's range seen on the
    calibration inputs. `exact` names the nodes that stay as they are: those before the first weights,
    the normalisation, and the products that upsample; `weighted` those that hold weights, in their
    order."""

    model: ModelProto
    ranges: Any
    exact: tuple[str, ...]
    weighted: tuple[str, ...]


def prepare(stage: bytes, inputs: NDArray[Any]) -> Prepared:
    """Simplify `stage` and run it on the calibration `inputs` [N, ...]."""
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        plain, ready = Path(scratch) / "plain.onnx", Path(scratch) / "ready.onnx"
        model = onnx.load_from_string(stage)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        plain.write_bytes(serialised(model))
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        model = onnx.load(ready)
        calibrator = create_calibrator(
            ready,
            list(QUANTISED),
            augmented_model_path=str(Path(scratch) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Batches(model.graph.input[0].name, inputs))
        ranges = calibrator.compute_data()
    nodes = model.graph.node
    products = tuple(node.name for node in nodes if node.name.startswith(PRODUCT))
    weighted = tuple(
        node.name for node in nodes if node.op_type in WEIGHTED and node.name not in products
    )
    return Prepared(model, ranges, (*_front(model), *products), weighted)


def prepare_all(stages: Sequence[bytes], images: NDArray[np.uint8]) -> tuple[Prepared, ...]:
    """Every stage made ready on the float32 features that `images` [N, H, W, 3] have before it.

    The range of features is the same on both sides, to the last bit, so that their scale is.
    """
    found: list[Prepared] = []
    for k, inputs in enumerate(StageRunner(stages).inputs(images), 1):
        ready = prepare(stages[k - 1], inputs)
        if found:
            ready.ranges[stage_input(k)] = found[-1].ranges[stage_input(k)]
        found.append(ready)
    return tuple(found)


def quantize(
    prepared: Prepared, scheme: Scheme, kept: frozenset[str] = frozenset(), reduced: bool = False
) -> bytes:
    """The stage in int8, but for the nodes `kept`. `scheme` is how activations are represented;
    `reduced` gives weights seven bits, for processors whose int8 sums saturate."""
    model = ModelProto()
    model.CopyFrom(prepared.model)
    with _quiet():
        quantizer = QDQQuantizer(
            model,
            True,  # a scale per channel
            reduced,
            QuantType.QInt8,
            ACTIVATIONS[scheme],
            prepared.ranges,
            [],
            [*prepared.exact, *sorted(kept)],
            list(QUANTISED),
            {},
        )
        quantizer.quantize_model()
    # A stage's last output.
    logits = model.graph.output[-1].name
    return _in_order(unrounded(quantizer.model.model, logits))


def halve(stage: bytes) -> bytes:
    """The stage with weights and computation in float16, its normalisation in float32."""
    model = onnx.load_from_string(stage)
    with _quiet():
        half = convert_float_to_float16(
            model, keep_io_types=True, node_block_list=list(_front(model))
        )
    return _in_order(half)


def saturates(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this x86 processor lacks VNNI: its sums of two u8 x s8 products saturate at 16 bits.

    A processor that does not say what it can is taken to be one that does not.
    """
    if not cpuinfo.is_file():
        return False
    flags = next(
        (line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), ""
    )
    return bool(flags) and not {"avx512_vnni", "avx_vnni"} & set(flags.split())


def _in_order(model: ModelProto) -> bytes:
    """The bytes of a model whose nodes stand as ONNX wants them, each after what it needs."""
    ordered = ONNXModel(model)
    ordered.topological_sort()
    return serialised(ordered.model)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: NDArray[Any]) -> None:
        self._parts: Iterator[dict[str, NDArray[Any]]] = (
            {name: np.ascontiguousarray(inputs[start : start + BATCH])}
            for start in range(0, len(inputs), BATCH)
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._parts, None)


def _front(model: ModelProto) -> tuple[str, ...]:
    """The nodes on the way from a uint8 input to the first weights."""
    graph = model.graph
    if graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return ()
    reached, front = {graph.input[0].name}, []
    node: NodeProto
    for node in graph.node:  # in topological order
        if reached.intersection(node.input) and node.op_type not in WEIGHTED:
            front.append(node.name)
            reached.update(node.output)
    return tuple(front)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's tools narrate through the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
