"""Class-activation maps of every exit in one ONNX graph, made from the stages' own heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.utils import Extractor

from exports.bundle.errors import ExportError
from exports.bundle.reader import map_output, stage_input
from exports.graphs.onnx_tools import (
    assemble,
    image_info,
    load_stages,
    opset,
    prefixed,
    rename,
    serialised,
)

OPSET = 13  # the first whose Unsqueeze takes its axes as an input
AXES = "maps.axes"
# What changes how numbers are written, and what changes how a pooled vector lies, but no value.
ENCODING = {"Identity", "Cast", "QuantizeLinear", "DequantizeLinear"}
LAYOUT = {"Flatten", "Reshape", "Squeeze"}


def maps_graph(stages: Sequence[bytes]) -> bytes:
    """image uint8 [N, H, W, 3] -> `maps1` to `mapsK` float32 [N, C, h, w], one per exit, for all classes.

    Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), equation 2: the
    features f before the global average pooling, weighted by the linear layer's w behind it,
    M_c(y, x) = sum_d w_cd f_d(y, x). The mean over y and x, plus the bias, is the logit of class c.
    Raises ExportError if a head is of another shape, or the stages cannot be one graph.
    """
    models = load_stages(stages)
    if opset(models[0]) < OPSET:
        raise ExportError(f"maps need stages of ONNX opset {OPSET} or newer.")
    nodes: list[NodeProto] = []
    outputs = []
    source = stage_input(1)
    for k, model in enumerate(models, 1):
        nodes += [rename(source, prefixed(k, stage_input(k))), *model.graph.node]
        nodes += _map_nodes(model, k)
        classes = model.graph.output[-1].type.tensor_type.shape.dim[1].dim_value
        shape = ["batch", classes, f"height{k}", f"width{k}"]
        outputs.append(helper.make_tensor_value_info(map_output(k), TensorProto.FLOAT, shape))
        source = prefixed(k, stage_input(k + 1))
    axes = helper.make_tensor(AXES, TensorProto.INT64, [2], [2, 3])
    whole = assemble("maps", models, nodes, [image_info(models)], outputs, [axes])
    names = [output.name for output in outputs]
    return serialised(Extractor(whole).extract_model(["image"], names))


def _map_nodes(model: ModelProto, k: int) -> list[NodeProto]:
    """A 1x1 convolution of the pooled features with the linear layer's weights, for stage `k`."""
    features, weight, transposed = _head(model.graph, k)
    at = f"maps{k}"
    nodes = []
    if not transposed:
        nodes.append(helper.make_node("Transpose", [weight], [f"{at}.rows"], perm=[1, 0]))
        weight = f"{at}.rows"
    nodes += [
        helper.make_node("Unsqueeze", [weight, AXES], [f"{at}.kernel"]),
        helper.make_node("Conv", [features, f"{at}.kernel"], [f"{at}.own"]),
        helper.make_node("Cast", [f"{at}.own"], [map_output(k)], to=TensorProto.FLOAT),
    ]
    for node in nodes:
        node.name = node.output[0]
    return nodes


def _head(graph: GraphProto, k: int) -> tuple[str, str, bool]:
    """The features [N, D, h, w] that are pooled, the weight of the linear layer behind, and whether
    that is [C, D] rather than [D, C]."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}

    def maker(name: str, passing: set[str]) -> NodeProto | None:
        """The node that computes `name`, before those of the kinds `passing`."""
        node = makers.get(name)
        while node is not None and node.op_type in passing:
            node = makers.get(node.input[0])
        return node

    linear = maker(prefixed(k, "logits"), ENCODING)
    if linear is not None and linear.op_type == "Add":
        # A bias that was not folded into the product.
        linear = maker(linear.input[int(linear.input[0] in constants)], ENCODING)
    if linear is None or not _is_linear(linear):
        raise _no_maps(k)
    pool = maker(linear.input[0], ENCODING | LAYOUT)
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
    # An attribute until opset 17, an input since.
    axes = _attribute(node, "axes", [])
    if len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)


def _no_maps(k: int) -> ExportError:
    return ExportError(
        f"this network offers no maps: exit {k} does not end in global average pooling and a linear layer."
    )
