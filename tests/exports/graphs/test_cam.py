"""The graph of class-activation maps: the mean of a map plus the bias is the logit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from exports.bundle.errors import ExportError
from exports.bundle.policy import Floats
from exports.bundle.reader import Bundle, load_bundle, read_graph
from exports.graphs.cam import cam_graph
from exports.stage_runner import StageRunner
from tests.commands import call
from tests.exports.bundles import FP32, INT8
from tests.serving.tiny_bundle import EXITS, stage_bytes, write_tiny_bundle
from tests.sessions import plain_session


def images_for(bundle: Bundle) -> NDArray[np.uint8]:
    spec = bundle.manifest.input
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (12, spec.height, spec.width, 3), np.uint8)


def cams_of(graph: bytes, images: NDArray[np.uint8]) -> list[Floats]:
    session = plain_session(graph)
    assert [one.name for one in session.get_inputs()] == ["image"]
    names = [one.name for one in session.get_outputs()]
    assert names == [f"maps{k}" for k in range(1, len(names) + 1)]
    return list(session.run(names, {"image": images}))


def bias_of(stage: bytes) -> Floats:
    """The bias [C] of the last linear layer, or zero."""
    graph = onnx.load_from_string(stage).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    biases = [node.input[2] for node in graph.node if node.op_type == "Gemm"]
    if not biases:
        return np.zeros(1, np.float32)
    if biases[0] in values:
        return np.asarray(values[biases[0]], np.float32)
    integers, scale, _ = next(node.input for node in graph.node if biases[0] in node.output)
    return np.asarray(values[integers] * values[scale], np.float32)


def differences(bundle: Bundle, graph: bytes) -> list[float]:
    """At each exit the largest difference of the maps' mean plus the bias from the logits, relative to the
    largest logit."""
    images = images_for(bundle)
    logits = StageRunner(bundle.stages).logits(images)
    errors = []
    cams = cams_of(graph, images)
    assert len(cams) == len(bundle.stages)
    for own, stage, expected in zip(cams, bundle.stages, logits, strict=True):
        assert own.dtype == np.float32
        assert own.shape[:2] == expected.shape
        restored = own.mean(axis=(2, 3)) + bias_of(stage)
        errors.append(float(np.abs(restored - expected).max() / np.abs(expected).max()))
    return errors


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("cam") / "tiny"))


def test_the_mean_of_a_map_plus_the_bias_is_the_logit(tiny: Bundle) -> None:
    """In a graph not written by torch: global pooling, Flatten, and a product without bias."""
    assert max(differences(tiny, cam_graph(tiny.stages))) < 1e-5


def test_the_identity_holds_for_the_network_with_four_exits() -> None:
    bundle = load_bundle(FP32)
    assert max(differences(bundle, cam_graph(bundle.stages))) < 1e-5


@pytest.mark.parametrize(
    ("precision", "most"),
    # fp16 rounds at 1e-3; int8 rounds the pooled features and the logits, but not the maps.
    [("fp32", 1e-5), ("fp16", 5e-3), ("int8", 3e-2)],
)
def test_the_identity_holds_for_an_exported_bundle_within_its_precision(
    digits_bundle: Path, tmp_path: Path, precision: str, most: float
) -> None:
    options = ("--precision", precision, "--graphs", "maps")
    result = call("export", digits_bundle, "-o", tmp_path / "b", *options)
    assert result.code == 0, result.err
    bundle = load_bundle(tmp_path / "b")
    entry = bundle.manifest.cam
    assert entry is not None
    assert (entry.kind, entry.exit, entry.file) == ("maps", None, "maps.onnx")
    assert max(differences(bundle, read_graph(bundle.path, entry))) < most
    assert "maps.onnx (maps, " in call("inspect", tmp_path / "b").out


def test_the_int8_bundle_offers_small_maps() -> None:
    bundle = load_bundle(INT8)
    entry = bundle.manifest.cam
    assert entry is not None
    content = read_graph(bundle.path, entry)
    assert content == cam_graph(bundle.stages)
    assert len(content) < 4e6
    assert max(differences(bundle, content)) < 3e-2


def test_the_axes_of_the_pooling_can_be_an_attribute(tiny: Bundle) -> None:
    model = onnx.load_from_string(tiny.stages[EXITS - 1])
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    (index,) = (i for i, node in enumerate(model.graph.node) if node == pool)
    mean = helper.make_node("ReduceMean", pool.input, pool.output, axes=[-1, -2], keepdims=1)
    model.graph.node[index].CopyFrom(mean)
    stages = (*tiny.stages[:-1], model.SerializeToString())
    expected = cams_of(cam_graph(tiny.stages), images_for(tiny))
    for own, other in zip(cams_of(cam_graph(stages), images_for(tiny)), expected, strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    ("kind", "replacement"),
    [("GlobalAveragePool", "GlobalMaxPool"), ("MatMul", "Mod")],
)
def test_a_head_of_another_shape_has_no_maps(tiny: Bundle, kind: str, replacement: str) -> None:
    model = onnx.load_from_string(stage_bytes(2))
    next(node for node in model.graph.node if node.op_type == kind).op_type = replacement
    stages = (tiny.stages[0], model.SerializeToString(), tiny.stages[2])
    with pytest.raises(ExportError, match=r"^this network offers no maps: exit 2 does not .*\.$"):
        cam_graph(stages)
