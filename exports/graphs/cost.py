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
    "FusedGemm": (0, 1),
    "QLinearMatMul": (0, 3),
}
TRANSPOSED = "ConvTranspose"
EINSUM = "Einsum"
# ONNX's and onnxruntime's; onnxruntime's Attention multiplies by the weights of all three first.
ATTENTION = frozenset({"Attention", "MultiHeadAttention"})
COUNTED = frozenset({*CONVOLUTIONS, *PRODUCTS, TRANSPOSED, EINSUM, *ATTENTION})
# Operators that multiply as much, and are not counted.
UNCOUNTED = frozenset(
    {
        *("DecoderMaskedMultiHeadAttention", "DeformConv", "GRU"),
        *(
            "GroupQueryAttention",
            "LSTM",
            "LinearAttention",
            "MatMulNBits",
            "NhwcConv",
            "NhwcFusedConv",
        ),
        *(
            "PackedAttention",
            "PackedMultiHeadAttention",
            "QAttention",
            "QGemm",
            "QMoE",
            "MoE",
            "RNN",
        ),
    }
)


def count_graph_macs(content: bytes, inputs: dict[str, NDArray[Any]]) -> int:
    """Multiply-accumulates of the convolutions, matrix products and attention in the ONNX file `content`.

    They follow from the shapes of one run on `inputs`, so that shapes which depend on data are known too.
    Of a batch they are the total. What `uncounted_operators` names is left out.
    """
    model = onnx.load_from_string(content)
    counted = [node for node in model.graph.node if _is_counted(node)]
    shapes = _shapes(model, counted, inputs)
    return sum(_node_macs(node, shapes) for node in counted)


def uncounted_operators(model: ModelProto) -> list[str]:
    """The names of operators in `model` whose multiply-accumulates are not counted: of other types, or within
    branches and loops."""
    names = {
        node.op_type
        for node in model.graph.node
        if node.op_type in UNCOUNTED or (node.op_type in COUNTED and not _is_counted(node))
    }
    branches = [(node.op_type, a.g) for node in model.graph.node for a in node.attribute]
    while branches:
        where, graph = branches.pop()
        for node in graph.node:
            if node.op_type in COUNTED | UNCOUNTED:
                names.add(f"{node.op_type} in {where}")
            branches += [(where, attribute.g) for attribute in node.attribute]
    return sorted(names)


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


def _is_counted(node: NodeProto) -> bool:
    """Whether the multiply-accumulates of `node` follow from its shapes."""
    if node.op_type == EINSUM:
        return len(node.input) == 2
    if node.op_type in ATTENTION and not _projects(node):
        # Queries, keys and values may also be packed into one input.
        return len(node.input) >= 3 and all(node.input[:3])
    return node.op_type in COUNTED and bool(node.output[0])


def _projects(node: NodeProto) -> bool:
    return (node.domain, node.op_type) == ("com.microsoft", "Attention")


def _node_macs(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    output = math.prod(shapes[node.output[0]])
    if node.op_type == EINSUM:
        return _einsum_macs(node, shapes)
    if node.op_type in ATTENTION:
        return _attention_macs(node, shapes)
    if node.op_type == TRANSPOSED:
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in CONVOLUTIONS:
        weights = shapes[node.input[CONVOLUTIONS[node.op_type][1]]]
        return output * math.prod(weights[1:])
    left = shapes[node.input[PRODUCTS[node.op_type][0]]]
    flipped = any(a.name == "transA" and a.i for a in node.attribute)
    return output * left[-2 if flipped and len(left) > 1 else -1]


def _einsum_macs(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """The product of the lengths of all axes of two factors."""
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    lengths: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        shape = shapes[name]
        before, _, after = term.partition("...")
        free = len(shape) - len(before) - len(after)
        # Axes of an ellipsis are aligned at their end.
        axes = [*before, *(f"...{position}" for position in range(free, 0, -1)), *after]
        for axis, length in zip(axes, shape, strict=True):
            lengths[axis] = max(lengths.get(axis, 1), length)
    return math.prod(lengths.values())


def _attention_macs(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Of softmax(Q K') V, and of the products that make Q, K and V where the node has their weights.

    Queries, keys and values are [N, length, size] or [N, heads, length, size], weights [size, sizes].
    """
    answer = shapes[node.output[0]]
    if not _projects(node):
        keys = shapes[node.input[1]][-2]
        return keys * (math.prod(shapes[node.input[0]]) + math.prod(answer))
    tokens, weights = math.prod(answer[:-1]), shapes[node.input[1]]
    queries = (weights[-1] - answer[-1]) // 2
    return tokens * (math.prod(weights) + answer[-2] * (queries + answer[-1]))


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
