"""Class-activation maps (CAM) of every exit in one ONNX graph, made from the heads of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from exports.bundle.errors import ExportError
from exports.bundle.reader import IMAGE, cam_output
from exports.graphs.onnx_tools import (
    assemble,
    connection,
    image_info,
    load_stages,
    opset,
    prefixed,
    serialised,
)

OPSET = 13  # the first whose Unsqueeze takes its axes as an input
AXES = "maps.axes"
# Nodes that change the number format or the layout of a pooled vector, but no value.
ENCODING = {"Identity", "Cast", "QuantizeLinear", "DequantizeLinear"}
LAYOUT = {"Flatten", "Reshape", "Squeeze"}


def cam_graph(stages: Sequence[bytes]) -> bytes:
    """image uint8 [N, H, W, 3] -> `maps1` to `mapsK` float32 [N, C, h, w]: per exit, for all classes.

    Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), equation 2: the
    features f before the global average pooling, weighted by the weights w of the linear layer after
    it, M_c(y, x) = sum_d w_cd f_d(y, x). The mean over y and x, plus the bias, is the logit of class c.
    Raises ExportError if a head has another shape, or the stages cannot be one graph.
    """
    models = load_stages(stages)
    if opset(models[0]) < OPSET:
        raise ExportError(f"maps need stages of ONNX opset {OPSET} or newer.")
    nodes: list[NodeProto] = []
    outputs = []
    for k, model in enumerate(models, 1):
        nodes += [connection(model, k), *model.graph.node]
        nodes += _cam_nodes(model, k)
        classes = model.graph.output[-1].type.tensor_type.shape.dim[1].dim_value
        shape = ["batch", classes, f"height{k}", f"width{k}"]
        outputs.append(helper.make_tensor_value_info(cam_output(k), TensorProto.FLOAT, shape))
    axes = helper.make_tensor(AXES, TensorProto.INT64, [2], [2, 3])
    model = assemble("maps", models, nodes, [image_info(models)], outputs, [axes])
    names = [output.name for output in outputs]
    return serialised(Extractor(model).extract_model([IMAGE], names))


def _cam_nodes(model: ModelProto, k: int) -> list[NodeProto]:
    """A 1x1 convolution of the pooled features with the linear layer's weights, for stage `k`."""
    features, weight, transposed = _head(model.graph, k)
    prefix = f"maps{k}"
    nodes = []
    if not transposed:
        nodes.append(helper.make_node("Transpose", [weight], [f"{prefix}.rows"], perm=[1, 0]))
        weight = f"{prefix}.rows"
    nodes += [
        helper.make_node("Unsqueeze", [weight, AXES], [f"{prefix}.kernel"]),
        helper.make_node("Conv", [features, f"{prefix}.kernel"], [f"{prefix}.own"]),
        helper.make_node("Cast", [f"{prefix}.own"], [cam_output(k)], to=TensorProto.FLOAT),
    ]
    for node in nodes:
        node.name = node.output[0]
    return nodes


def _head(graph: GraphProto, k: int) -> tuple[str, str, bool]:
    """The features [N, D, h, w] that are pooled, the weight of the linear layer after the pooling,
    and whether that weight is [C, D] rather than [D, C]."""
    producers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def producer(name: str, skipped: set[str]) -> NodeProto | None:
        """The node that computes `name`, or the nearest one before it that is not of a kind in
        `skipped`."""
        node = producers.get(name)
        while node is not None and node.op_type in skipped:
            node = producers.get(node.input[0])
        return node

    linear = producer(prefixed(k, "logits"), ENCODING)
    if linear is not None and linear.op_type == "Add":
        # A bias that was not folded into the product.
        linear = producer(linear.input[int(linear.input[0] in constants)], ENCODING)
    if linear is None or not _is_linear(linear):
        raise _no_maps(k)
    pool = producer(linear.input[0], ENCODING | LAYOUT)
    if pool is None or not _pools_space(pool, constants):
        raise _no_maps(k)
    return pool.input[0], linear.input[1], bool(_attribute(linear, "transB", 0))


def _is_linear(node: NodeProto) -> bool:
    if node.op_type == "Gemm":
        return _attribute(node, "alpha", 1.0) == 1.0 and not _attribute(node, "transA", 0)
    return bool(node.op_type == "MatMul")


def _pools_space(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    if node.op_type != "ReduceMean":
        return bool(node.op_type == "GlobalAveragePool")
    # The axes are an attribute up to opset 17 and an input since.
    axes = _attribute(node, "axes", [])
    if len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    values = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(values, default)


def _no_maps(k: int) -> ExportError:
    return ExportError(
        f"this network offers no maps: exit {k} does not end in global average pooling and a linear layer."
    )
