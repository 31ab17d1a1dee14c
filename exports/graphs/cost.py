"""What any ONNX graph costs: parameters and multiply-accumulates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from offramp.onnx_runtime import load_onnxruntime, session_options

# Operators of which multiply-accumulates are counted, with the positions of the data and the weights.
CONVOLUTIONS = {"Conv": (0, 1), "ConvInteger": (0, 1), "FusedConv": (0, 1), "QLinearConv": (0, 3)}
PRODUCTS = {
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "FusedMatMul": (0, 1),
    "Gemm": (0, 1),
    "QLinearMatMul": (0, 3),
}
TRANSPOSED = "ConvTranspose"


def count_graph_macs(content: bytes, inputs: dict[str, NDArray[Any]]) -> int:
    """Multiply-accumulates of the convolutions and matrix products in the ONNX file `content`.

    They follow from the shapes of one run on `inputs`, so that shapes which depend on data are known too.
    Of a batch they are the total. Nodes within branches, loops and functions are not counted.
    """
    model = onnx.load_from_string(content)
    counted = [
        node
        for node in model.graph.node
        if node.op_type in {*CONVOLUTIONS, *PRODUCTS, TRANSPOSED} and node.output[0]
    ]
    shapes = _shapes(model, counted, inputs)
    return sum(_node_macs(node, shapes) for node in counted)


def count_graph_parameters(model: ModelProto) -> int:
    """The number of weights: elements of floating-point and 8-bit constants with at least one axis."""
    weights = {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
    }
    constants = list(model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants += [a.t for a in node.attribute if a.name == "value"]
    return sum(math.prod(t.dims) for t in constants if t.data_type in weights and t.dims)


def _node_macs(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    output = math.prod(shapes[node.output[0]])
    if node.op_type == TRANSPOSED:
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in CONVOLUTIONS:
        weights = shapes[node.input[CONVOLUTIONS[node.op_type][1]]]
        return output * math.prod(weights[1:])
    left = shapes[node.input[PRODUCTS[node.op_type][0]]]
    flipped = any(a.name == "transA" and a.i for a in node.attribute)
    return output * left[-2 if flipped and len(left) > 1 else -1]


def _shapes(
    model: ModelProto, nodes: list[NodeProto], inputs: dict[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of all inputs and outputs of `nodes`, measured by a run."""
    known = {t.name: tuple(t.dims) for t in model.graph.initializer}
    known |= {name: value.shape for name, value in inputs.items()}
    wanted = {name for node in nodes for name in (*node.input, node.output[0]) if name}
    probe = ModelProto()
    probe.CopyFrom(model)
    present = {output.name for output in probe.graph.output}
    names = sorted(wanted - known.keys())
    # onnxruntime infers the types of outputs that are declared without one.
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    if not names:
        return known
    ort, options = load_onnxruntime(), session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(names, inputs)
    return known | {name: np.shape(value) for name, value in zip(names, values, strict=True)}
