"""Upsampling as matrix products gives the same values as onnxruntime's Resize."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exports.bundle.reader import load_bundle
from exports.graphs.upsample import MAX_SIDE, MODES, PRODUCT, resizes_as_products
from exports.precision.quantize import prepare, quantize
from exports.stage_runner import StageRunner
from tests.exports.bundles import FP32

CHANNELS = 3
Side = st.integers(1, 20)


def resize(
    sides: tuple[int, int],
    *,
    sizes: tuple[int, int] | None = None,
    scales: tuple[float, float] | None = None,
    version: int = 20,
    **attributes: Any,
) -> ModelProto:
    """x float32 [n, 3, h, w] -> y, by a Resize written as torch writes it (sizes), or with scales."""
    constants: dict[str, NDArray[Any]] = {}
    nodes = []
    if sizes:
        constants["target"] = np.array(sizes, np.int64)
        nodes = [
            helper.make_node("Shape", ["x"], ["own"], start=0, end=2),
            helper.make_node("Concat", ["own", "target"], ["sizes"], axis=0),
        ]
    else:
        constants["scales"] = np.array([1, 1, *(scales or (2, 2))], np.float32)
    inputs = ["x", "", "", "sizes"] if sizes else ["x", "", "scales"]
    attributes = {"mode": "linear", **attributes}
    nodes.append(helper.make_node("Resize", inputs, ["y"], **attributes))
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CHANNELS, *sides])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CHANNELS, "high", "wide"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    imports = [helper.make_opsetid("", version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    output: NDArray[np.float32] = ort.InferenceSession(model.SerializeToString()).run(
        None, {"x": x}
    )[0]
    return output


def assert_same(model: ModelProto, sides: tuple[int, int]) -> ModelProto:
    products = resizes_as_products(model)
    assert "Resize" not in kinds(products)
    onnx.checker.check_model(products)
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        x = rng.normal(size=(batch, CHANNELS, *sides)).astype(np.float32)
        np.testing.assert_allclose(run(products, x), run(model, x), atol=3e-6)
    return products


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=30)
@given(sides=st.tuples(Side, Side), sizes=st.tuples(Side, Side))
def test_any_sizes_give_the_same(
    mode: bytes, sides: tuple[int, int], sizes: tuple[int, int]
) -> None:
    model = resize(sides, sizes=sizes, coordinate_transformation_mode=mode.decode())
    assert_same(model, sides)


@pytest.mark.parametrize("version", [13, 18, 20])
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.7, 2.6), (0.5, 3.0)])
@pytest.mark.parametrize("sides", [(16, 16), (5, 7), (7, 3)])
def test_scales_that_are_not_integers_give_the_same(
    sides: tuple[int, int], scales: tuple[float, float], version: int
) -> None:
    assert_same(resize(sides, scales=scales, version=version), sides)


def test_large_features_take_a_product_per_side_and_small_ones_a_single_product() -> None:
    """The nodes that computed the sizes are removed."""
    assert kinds(assert_same(resize((16, 16), sizes=(32, 32)), (16, 16))) == {"MatMul": 2}
    small = assert_same(resize((4, 4), sizes=(8, 8)), (4, 4))
    assert kinds(small) == {"MatMul": 1, "Reshape": 2}
    assert all(tensor.name.startswith(PRODUCT) for tensor in small.graph.initializer)


@pytest.mark.parametrize(
    "model",
    [
        resize((4, 4), sizes=(8, 8), mode="nearest"),
        resize((4, 4), sizes=(8, 8), mode="cubic"),
        resize((4, 4), sizes=(2, 2), antialias=1),
        resize((4, 6), sizes=(8, 8), keep_aspect_ratio_policy="not_larger"),
        resize((4, 4), sizes=(MAX_SIDE + 1, 8)),
    ],
    ids=["nearest", "cubic", "antialias", "aspect ratio", "too large"],
)
def test_any_other_resize_is_left_as_it_is(model: ModelProto) -> None:
    assert resizes_as_products(model) == model


def test_a_resize_of_unknown_sizes_is_left_as_it_is() -> None:
    model = resize((4, 4), sizes=(8, 8))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"
    assert resizes_as_products(model) == model


def test_products_are_neither_quantised_nor_candidates_for_float32() -> None:
    stage = load_bundle(FP32).stages[0]
    model = resizes_as_products(onnx.load_from_string(stage))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    products = {node.name for node in model.graph.node if node.name.startswith(PRODUCT)}
    prepared = prepare(model.SerializeToString(), images)
    assert products
    assert not products & set(prepared.weighted)
    int8 = quantize(prepared, "u8s8")
    quantised = {i for n in onnx.load_from_string(int8).graph.node for i in n.input}
    assert "upsample_bilinear2d" in quantised
    weights = {t.name: t for t in onnx.load_from_string(int8).graph.initializer}
    assert all(
        tensor.data_type == TensorProto.FLOAT
        for name, tensor in weights.items()
        if name.startswith(PRODUCT)
    )


def test_the_heads_of_the_embedded_network_give_the_same_logits() -> None:
    bundle = load_bundle(FP32)
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3)).astype(np.uint8)
    models = [resizes_as_products(onnx.load_from_string(stage)) for stage in bundle.stages]
    assert all("Resize" not in kinds(model) for model in models)
    products = StageRunner([model.SerializeToString() for model in models])
    np.testing.assert_allclose(
        products.logits(images), StageRunner(bundle.stages).logits(images), atol=2e-4
    )
