"""Int8 stages exchange quantised features, and do not round their logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from exports.bundle.reader import Bundle, load_bundle
from exports.graphs.onnx_tools import exit_graph
from exports.precision.boundaries import connect_stages, feature_type
from exports.precision.quantize import Prepared, Scheme, prepare_all, quantize
from exports.stage_runner import StageRunner
from serving.inference.engine import Engine
from tests.commands import call
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

Images = NDArray[np.uint8]
BOTH = pytest.mark.parametrize(("scheme", "kind"), [("u8s8", "uint8"), ("s8s8", "int8")])


@pytest.fixture(scope="module")
def images() -> Images:
    data = load_dataset(DataRecipe(name="digits", held_out=300), Path("unused"))
    return data.test.images[:100]


@pytest.fixture(scope="module")
def prepared(digits_bundle: Path, images: Images) -> tuple[Prepared, ...]:
    return prepare_all(load_bundle(digits_bundle).stages, images)


def types(stages: Sequence[bytes]) -> list[str]:
    return [feature_type(stage) for stage in stages[:-1]]


def producers(stage: bytes) -> dict[str, str]:
    nodes = onnx.load_from_string(stage).graph.node
    return {output: node.op_type for node in nodes for output in node.output}


@BOTH
def test_features_stay_quantised_between_stages_and_logits_do_not_change(
    prepared: tuple[Prepared, ...], images: Images, scheme: Scheme, kind: str
) -> None:
    """Converting eight bits to float32 and back, which is left out, changes no bit."""
    apart = [quantize(stage, scheme) for stage in prepared]
    together = connect_stages(apart)
    assert (types(apart), types(together)) == (["float32"] * 3, [kind] * 3)
    for stage in together:
        onnx.checker.check_model(onnx.load_from_string(stage))
    for stage, after in enumerate(together[1:], 2):
        assert "QuantizeLinear" not in [
            node.op_type
            for node in onnx.load_from_string(after).graph.node
            if f"features{stage - 1}" in node.input
        ]
    np.testing.assert_allclose(
        StageRunner(together).logits(images), StageRunner(apart).logits(images), atol=1e-4
    )


def test_a_stage_that_stays_in_float32_has_float32_features(
    prepared: tuple[Prepared, ...], images: Images
) -> None:
    kept = frozenset(prepared[1].weighted)
    int8 = [
        quantize(stage, "u8s8", kept if k == 1 else frozenset()) for k, stage in enumerate(prepared)
    ]
    first = onnx.load_from_string(int8[1]).graph.input[0].name
    assert first == "features1"
    together = connect_stages(int8)
    assert types(together)[0] == "float32"
    assert types(together)[2] == "uint8"
    StageRunner(together).logits(images)


def test_a_float32_stage_is_left_as_it_is(
    digits_bundle: Path, prepared: tuple[Prepared, ...], images: Images
) -> None:
    stages = [quantize(stage, "u8s8") for stage in prepared]
    stages[2] = load_bundle(digits_bundle).stages[2]
    together = connect_stages(stages)
    assert together[2] == stages[2]
    assert types(together) == ["uint8", "float32", "float32"]
    StageRunner(together).logits(images)


def test_stages_with_different_scales_are_not_connected(
    digits_bundle: Path, prepared: tuple[Prepared, ...], images: Images
) -> None:
    others = prepare_all(load_bundle(digits_bundle).stages, images // 2)
    stages = [quantize(one, "u8s8") for one in (prepared[0], *others[1:])]
    assert types(connect_stages(stages)) == ["float32", "uint8", "uint8"]


def test_logits_are_the_output_of_the_last_layer(prepared: tuple[Prepared, ...]) -> None:
    for stage in prepared:
        assert producers(quantize(stage, "u8s8"))["logits"] == "Gemm"


@pytest.fixture(scope="module")
def int8(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("boundaries") / "int8"
    options = ("--precision", "int8", "--target", "u8s8", "--graphs", "exits,routed,maps")
    result = call("export", digits_bundle, "-o", target, *options)
    assert result.code == 0, result.err
    return load_bundle(target)


def test_the_manifest_has_the_type_of_the_features(int8: Bundle, digits_bundle: Path) -> None:
    exits = int8.manifest.exits
    assert [entry.feature_type for entry in exits[:-1]] == types(int8.stages)
    assert "uint8" in types(int8.stages)
    exact = load_bundle(digits_bundle).manifest.exits
    assert {entry.feature_type for entry in exact} == {"float32"}
    result = call("inspect", int8.path)
    assert "every graph opened in onnxruntime" in result.out
    assert "uint8 8 x 8 x 8" in result.out


def test_the_engine_and_the_exit_graphs_answer_like_the_stages(
    int8: Bundle, images: Images
) -> None:
    logits = StageRunner(int8.stages).logits(images)
    engine = Engine(int8)
    for k in range(1, len(logits) + 1):
        policy = int8.policy.override(mode="exit", max_exit=k)
        answers = [p.index for p in engine.classify(images, policy)]
        np.testing.assert_array_equal(answers, logits[k - 1].argmax(axis=1))
        exit_logits = StageRunner([exit_graph(int8.stages, k)]).logits(images)[0]
        np.testing.assert_allclose(exit_logits, logits[k - 1], atol=1e-3)
