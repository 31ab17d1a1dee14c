"""Multiply-accumulates of any graph, computed by hand."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exports.bundle.reader import features_of, load_bundle
from exports.graphs.cost import count_graph_macs, count_graph_parameters, uncounted_operators
from tests.exports.bundles import INT8

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]


def model(nodes: list[NodeProto], shape: list[int], **weights: tuple[int, ...]) -> ModelProto:
    tensors = [
        numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def macs(network: ModelProto, *shape: int) -> int:
    return count_graph_macs(network.SerializeToString(), {"x": np.ones(shape, np.float32)})


def test_a_convolution_in_groups() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1] * 4)
    network = model([node], [1, 4, 8, 8], w=(6, 2, 3, 3))
    assert macs(network, 1, 4, 8, 8) == 6 * 4 * 4 * (2 * 3 * 3)
    assert count_graph_parameters(network) == 6 * 2 * 3 * 3


def test_a_transposed_convolution() -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    assert macs(model([node], [1, 4, 5, 5], w=(4, 3, 2, 2)), 1, 4, 5, 5) == 4 * 25 * 3 * 4


def test_a_linear_layer_in_both_forms() -> None:
    product = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [7, 5], w=(5, 3))
    assert macs(product, 7, 5) == 7 * 5 * 3
    turned = model([helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)], [5, 7], w=(5, 3))
    assert macs(turned, 5, 7) == 7 * 5 * 3


def test_a_product_of_shapes_that_depend_on_data() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["size"]),
        helper.make_node("Concat", ["size", "rest"], ["form"], axis=0),
        helper.make_node("Reshape", ["x", "form"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["rows", "turned"], ["y"]),
    ]
    network = model(nodes, [2, 12])
    network.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    network.graph.initializer.append(numpy_helper.from_array(np.array([3, 4]), "rest"))
    assert macs(network, 2, 12) == 2 * 3 * 3 * 4


def test_einstein_sums_of_two_factors() -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="...ij, kj -> ...ik")
    network = model([node], [2, 7, 5], w=(3, 5))
    assert macs(network, 2, 7, 5) == 2 * 7 * 5 * 3
    assert uncounted_operators(network) == []


def test_attention_of_queries_keys_and_values() -> None:
    """Four heads of 2: 6 queries look at 9 keys."""
    node = helper.make_node(
        "MultiHeadAttention", ["x", "k", "v"], ["y"], domain="com.microsoft", num_heads=4
    )
    network = model([node], [1, 6, 8], k=(1, 9, 8), v=(1, 9, 8))
    assert macs(network, 1, 6, 8) == 6 * 9 * 8 + 6 * 9 * 8


def test_attention_with_the_weights_of_its_factors() -> None:
    node = helper.make_node(
        "Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=4
    )
    network = model([node], [2, 6, 8], w=(8, 24), b=(24,))
    assert macs(network, 2, 6, 8) == 2 * 6 * (8 * 24) + 2 * (6 * 6 * 8 + 6 * 6 * 8)


def test_what_is_not_counted_is_named() -> None:
    product = helper.make_node("MatMul", ["x", "w"], ["z"])
    branch = helper.make_graph(
        [product], "branch", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    )
    nodes = [
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("LSTM", ["x", "w", "w"], ["h"], hidden_size=1),
        helper.make_node("Einsum", ["x", "w", "w"], ["e"], equation="ij,jk,kl->il"),
        helper.make_node("Attention", ["x"], ["a"]),
    ]
    assert uncounted_operators(model(nodes, [7, 5], w=(5, 3))) == [
        "Attention",
        "Einsum",
        "LSTM",
        "MatMul in If",
    ]


def test_a_network_of_offramp_has_the_macs_that_torch_counted() -> None:
    bundle = load_bundle(INT8)
    *_, before, last = bundle.manifest.exits
    assert before.feature_shape is not None
    features = np.zeros((1, *before.feature_shape), before.feature_type)
    name = features_of(len(bundle.stages) - 1)
    counted = count_graph_macs(bundle.stages[-1], {name: features})
    assert counted == last.macs - before.macs
