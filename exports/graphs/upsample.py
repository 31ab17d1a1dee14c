"""Bilinear upsampling as products with constant matrices, several times faster than onnxruntime's Resize.

A linear Resize between fixed sizes is a linear map of each side, y = R x C with R [H', H] and C [W, W'].
For small features it is written as one product of the flattened x with the Kronecker product of R and C,
since a product per channel costs more in calls than in arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from exports.graphs.onnx_tools import opset, prune

# The prefix of the product nodes' names; int8 quantisation skips these nodes.
PRODUCT = "upsample."
# Above this side Resize is as fast, since its work per output does not grow with the side.
MAX_SIDE = 128
# Elements of the Kronecker product. Measured: 7 x 7 to 14 x 14 is faster, 8 x 8 to 16 x 16 is not.
MAX_KRONECKER_SIZE = 10_000
# A Resize with another value of any of these is left as it is.
REQUIRED_ATTRIBUTES: dict[str, Any] = {
    "antialias": 0,
    "exclude_outside": 0,
    "keep_aspect_ratio_policy": b"stretch",
}
MODES = (
    *(b"half_pixel", b"pytorch_half_pixel", b"half_pixel_symmetric"),
    *(b"align_corners", b"asymmetric"),
)


def resizes_as_products(model: ModelProto) -> ModelProto:
    """`model` with every linear Resize of [N, C, H, W] between fixed sizes as matrix products.

    Any other Resize is left as it is. Values differ by float32 rounding.
    """
    result = ModelProto()
    result.CopyFrom(model)
    if not any(node.op_type == "Resize" for node in model.graph.node):
        return result
    graph = result.graph
    shapes = _shapes(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        matrices = _matrices(node, shapes, constants, opset(model))
        if matrices is None:
            nodes.append(node)
            continue
        products, tensors = _products(node, *matrices)
        nodes += products
        graph.initializer.extend(tensors)
    del graph.node[:]
    graph.node.extend(nodes)
    return prune(result)


def _products(
    node: NodeProto, rows: NDArray[np.float32], columns: NDArray[np.float32]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes that replace `node`, and their constants; `rows` [H, H'], `columns` [W, W']."""
    source, target = node.input[0], node.output[0]
    prefix = f"{PRODUCT}{target}"

    def op(kind: str, inputs: list[str], output: str) -> NodeProto:
        return helper.make_node(kind, inputs, [output], name=f"{PRODUCT}{output}")

    if rows.size * columns.size > MAX_KRONECKER_SIZE:
        constants = {f"{prefix}.columns": columns, f"{prefix}.rows": np.ascontiguousarray(rows.T)}
        nodes = [
            op("MatMul", [source, f"{prefix}.columns"], f"{prefix}.wide"),
            op("MatMul", [f"{prefix}.rows", f"{prefix}.wide"], target),
        ]
    else:
        (height, new_height), (width, new_width) = rows.shape, columns.shape
        constants = {
            f"{prefix}.both": np.kron(rows, columns),
            # A size of 0 keeps the input's.
            f"{prefix}.flat": np.array([0, 0, height * width], np.int64),
            f"{prefix}.shape": np.array([0, 0, new_height, new_width], np.int64),
        }
        nodes = [
            op("Reshape", [source, f"{prefix}.flat"], f"{prefix}.flattened"),
            op("MatMul", [f"{prefix}.flattened", f"{prefix}.both"], f"{prefix}.product"),
            op("Reshape", [f"{prefix}.product", f"{prefix}.shape"], target),
        ]
    return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _matrices(
    node: NodeProto,
    shapes: dict[str, list[int]],
    constants: dict[str, NDArray[Any]],
    version: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The matrices [H, H'] and [W, W'] of `node`; None if products cannot replace it."""
    if node.op_type != "Resize":
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
    coordinates = attributes.get("coordinate_transformation_mode", b"half_pixel")
    if (
        version < 11
        or len(before) != 4
        or len(after) != 4
        or before[1] != after[1]
        or not all(0 < side <= MAX_SIDE for side in (*before[2:], *after[2:]))
        or coordinates not in MODES
        or "axes" in attributes
        or attributes.get("mode") != b"linear"
        or any(attributes.get(name, value) != value for name, value in REQUIRED_ATTRIBUTES.items())
    ):
        return None
    # The coordinates depend on the scale in the graph, not only on the sizes.
    scales: list[float | None] = [None, None]
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in constants:
            return None
        scales = constants[node.input[2]][2:].tolist()
    rows, columns = (
        _matrix(coordinates, size, target, scale, version)
        for size, target, scale in zip(before[2:], after[2:], scales, strict=True)
    )
    return rows, columns


def _matrix(
    coordinates: bytes, size: int, target: int, scale: float | None, version: int
) -> NDArray[np.float32]:
    """The matrix [size, target] of one side: the output of Resize itself for the identity."""
    if scale is None:
        last = numpy_helper.from_array(np.array([size, target], np.int64), "last")
    else:
        last = numpy_helper.from_array(np.array([1, scale], np.float32), "last")
    inputs = ["x", "", "", "last"] if scale is None else ["x", "", "last"]
    node = helper.make_node(
        "Resize", inputs, ["y"], mode="linear", coordinate_transformation_mode=coordinates
    )
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [last],
    )
    # The stage's own opset, since opsets define Resize differently.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    matrix: NDArray[np.float32] = session.run(None, {"x": np.eye(size, dtype=np.float32)})[0]
    return matrix


def _shapes(model: ModelProto) -> dict[str, list[int]]:
    """The shape of every tensor of known rank; unknown sizes are 0."""
    graph = infer_shapes(model, data_prop=True).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
