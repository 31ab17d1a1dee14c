"""Conversion of one stage to int8 or fp16.

int8 is onnxruntime's static quantisation: QDQ nodes, and a scale per channel. A stage keeps the names
and types of its inputs and outputs: uint8 `image`, float32 features and logits. `boundaries` then keeps
features quantised between stages.
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

from exports.bundle.reader import IMAGE
from exports.graphs.onnx_tools import serialised
from exports.graphs.upsample import PRODUCT
from exports.precision.boundaries import remove_final_rounding
from exports.stage_runner import StageRunner

Scheme = Literal["u8s8", "s8s8"]
ACTIVATIONS = {"u8s8": QuantType.QUInt8, "s8s8": QuantType.QInt8}
WEIGHTED = ("Conv", "Gemm", "MatMul")
# Node types with a fast int8 kernel. A batch norm that could not be folded stays in float32.
QUANTISED = (
    *WEIGHTED,
    *("Add", "Mul", "Relu", "Clip", "Sigmoid", "Concat", "Resize"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose"),
)
BATCH_SIZE = 32


@dataclass(frozen=True)
class Prepared:
    """A float32 stage prepared for quantisation: simplified, with inferred shapes, and with the range of
    every tensor on the calibration inputs.

    `exact` names the nodes that always stay in float32: the normalisation before the first weights, and
    the products that upsample. `weighted` names the nodes with weights, in their order.
    """

    model: ModelProto
    ranges: Any
    exact: tuple[str, ...]
    weighted: tuple[str, ...]


def prepare(stage: bytes, inputs: NDArray[Any]) -> Prepared:
    """Simplify `stage` and run it on the calibration `inputs` [N, ...]."""
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        plain, simplified = Path(scratch) / "plain.onnx", Path(scratch) / "simplified.onnx"
        model = onnx.load_from_string(stage)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        plain.write_bytes(serialised(model))
        quant_pre_process(plain, simplified, skip_symbolic_shape=True)
        model = onnx.load(simplified)
        calibrator = create_calibrator(
            simplified,
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
    return Prepared(model, ranges, (*_normalisation(model), *products), weighted)


def prepare_all(stages: Sequence[bytes], images: NDArray[np.uint8]) -> tuple[Prepared, ...]:
    """Prepare every stage with its float32 inputs for `images` [N, H, W, 3].

    Features get bit-identical ranges, and so identical scales, at the output of one stage and at the
    input of the next.
    """
    prepared: list[Prepared] = []
    for content, inputs in zip(stages, StageRunner(stages).inputs(images), strict=True):
        stage = prepare(content, inputs)
        name = stage.model.graph.input[0].name
        if name != IMAGE:
            stage.ranges[name] = prepared[-1].ranges[name]
        prepared.append(stage)
    return tuple(prepared)


def quantize(prepared: Prepared, scheme: Scheme, kept: frozenset[str] = frozenset()) -> bytes:
    """The stage in int8, except for the nodes `kept`, which stay in float32. `scheme` is the type of
    activations and weights."""
    model = ModelProto()
    model.CopyFrom(prepared.model)
    with _quiet():
        quantizer = QDQQuantizer(
            model,
            True,  # a scale per channel
            False,  # weights of eight bits, not seven: sums do not saturate (offramp/onnx_runtime.py)
            QuantType.QInt8,
            ACTIVATIONS[scheme],
            prepared.ranges,
            [],
            [*prepared.exact, *sorted(kept)],
            list(QUANTISED),
            {},
        )
        quantizer.quantize_model()
    logits = model.graph.output[-1].name
    return _sorted(remove_final_rounding(quantizer.model.model, logits))


def to_float16(stage: bytes) -> bytes:
    """The stage with weights and computation in float16; the normalisation stays in float32."""
    model = onnx.load_from_string(stage)
    with _quiet():
        converted = convert_float_to_float16(
            model, keep_io_types=True, node_block_list=list(_normalisation(model))
        )
    return _sorted(converted)


def _sorted(model: ModelProto) -> bytes:
    """The bytes of the model with its nodes in topological order, which ONNX requires."""
    sorted_ = ONNXModel(model)
    sorted_.topological_sort()
    return serialised(sorted_.model)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, inputs: NDArray[Any]) -> None:
        self._parts: Iterator[dict[str, NDArray[Any]]] = (
            {name: np.ascontiguousarray(inputs[start : start + BATCH_SIZE])}
            for start in range(0, len(inputs), BATCH_SIZE)
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._parts, None)


def _normalisation(model: ModelProto) -> tuple[str, ...]:
    """The nodes between a uint8 input and the first weights."""
    graph = model.graph
    if graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return ()
    reached, names = {graph.input[0].name}, []
    node: NodeProto
    for node in graph.node:  # in topological order
        # The products that resize an image have no weights of the network.
        weighted = node.op_type in WEIGHTED and not node.name.startswith(PRODUCT)
        if reached.intersection(node.input) and not weighted:
            names.append(node.name)
            reached.update(node.output)
    return tuple(names)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's tools, which log their steps to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
