from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exports.bundle.manifest import FeatureType
from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle, load_bundle
from serving.inference.engine import Engine
from serving.inference.runners import DeviceRunner, HostRunner, take_graph
from serving.scheduling.execution import gather
from serving.scheduling.queues import Block, Sample, ScheduledRequest
from tests.serving.tiny_bundle import EXITS, write_tiny_bundle

FULL = Policy(thresholds=(2.0, 2.0), max_exit=EXITS)
EARLY = Policy(thresholds=(0.6, 0.5), max_exit=EXITS, combine="running")
Images = NDArray[np.uint8]


@pytest.fixture(params=["float32", "uint8", "int8"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    """A bundle with each type of features."""
    return load_bundle(write_tiny_bundle(tmp_path / request.param, kind=request.param))


@pytest.fixture
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle)


@pytest.fixture
def device_engine(bundle: Bundle) -> Engine:
    """An engine with the runner for GPUs, and the CPU as its device."""
    sessions = [ort.InferenceSession(content) for content in bundle.stages]
    engine = Engine(bundle)
    takes: dict[FeatureType, Any] = {
        kind: ort.InferenceSession(take_graph(kind)) for kind in get_args(FeatureType)
    }
    runner = DeviceRunner(sessions, takes, "cpu", ort)
    engine._runner, engine.take, engine.join = runner, runner.take, runner.join
    return engine


@pytest.mark.parametrize(
    ("kind", "number"),
    [("float32", TensorProto.FLOAT), ("uint8", TensorProto.UINT8), ("int8", TensorProto.INT8)],
)
def test_the_embedded_graph_is_a_gather_of_rows(kind: FeatureType, number: int) -> None:
    inputs = [
        helper.make_tensor_value_info("data", number, ["n", "c", "h", "w"]),
        helper.make_tensor_value_info("rows", TensorProto.INT64, ["m"]),
    ]
    taken = helper.make_tensor_value_info("taken", number, ["m", "c", "h", "w"])
    node = helper.make_node("Gather", ["data", "rows"], ["taken"], axis=0)
    graph = helper.make_graph([node], "take", inputs, [taken])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=""
    )
    assert onnx.load_from_string(take_graph(kind)) == model


def test_answers_on_the_device_are_the_same(
    engine: Engine, device_engine: Engine, images: Images
) -> None:
    for policy in (FULL, EARLY):
        expected = engine.classify(images, policy)
        found = device_engine.classify(images, policy)
        assert [p.exit for p in found] == [p.exit for p in expected]
        for prediction, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(prediction.probabilities, wanted.probabilities, atol=1e-6)


def test_features_stay_on_the_device(bundle: Bundle, device_engine: Engine, images: Images) -> None:
    output = device_engine.run_stage(1, images)
    assert isinstance(output.features, ort.OrtValue)
    assert output.features.numpy().dtype == bundle.manifest.exits[0].feature_type
    taken = device_engine.take(output.features, np.array([3, 1]))
    assert isinstance(taken, ort.OrtValue)
    np.testing.assert_array_equal(taken.numpy(), output.features.numpy()[[3, 1]])
    joined = device_engine.join([taken, output.features])
    assert joined.numpy().shape[0] == 2 + len(images)


@pytest.fixture(params=["host", "device"])
def any_engine(request: pytest.FixtureRequest, engine: Engine, device_engine: Engine) -> Engine:
    return engine if request.param == "host" else device_engine


def to_array(tensor: Any) -> NDArray[Any]:
    return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()


@pytest.mark.parametrize(
    "places",
    [[(0, 0), (0, 1), (0, 2)], [(0, 2), (0, 0)], [(0, 1), (1, 0), (1, 2), (0, 0)]],
    ids=["a whole batch", "part of a batch", "parts of two"],
)
def test_samples_are_gathered_with_their_features_and_logits(
    any_engine: Engine, images: Images, places: list[tuple[int, int]]
) -> None:
    blocks = []
    for start in (0, 3):
        output = any_engine.run_stage(1, images[start : start + 3])
        blocks.append(Block(3, output.features, [output.logits]))
    request = ScheduledRequest(any_engine, FULL)
    samples = [Sample(request, 0, 0, block=blocks[b], row=row, stage=2) for b, row in places]
    block = gather(any_engine, samples)
    assert block.rows == len(places)
    for i, (b, row) in enumerate(places):
        np.testing.assert_array_equal(to_array(block.inputs)[i], to_array(blocks[b].inputs)[row])
        np.testing.assert_array_equal(block.logits[0][i], blocks[b].logits[0][row])


def test_a_whole_batch_is_not_copied(engine: Engine, images: Images) -> None:
    block = Block(2, images[:2], [])
    samples = [Sample(ScheduledRequest(engine, FULL), 0, 0, block=block, row=row) for row in (0, 1)]
    assert gather(engine, samples) is block


def test_the_host_runner_returns_arrays(bundle: Bundle, images: Images) -> None:
    runner = HostRunner([ort.InferenceSession(content) for content in bundle.stages])
    features, logits = runner.run(1, images[:2])
    assert isinstance(features, np.ndarray)
    assert features.dtype == bundle.manifest.exits[0].feature_type
    assert logits.shape == (2, 7)
