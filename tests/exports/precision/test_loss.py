"""The accuracy that a conversion may lose, and the nodes that stay in float32 to keep it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exports.bundle.manifest import Accuracy, Conversion
from exports.bundle.policy import Scaling
from exports.bundle.reader import Table
from exports.measure import Measurement
from exports.precision.convert import Converted, loss
from exports.precision.quantize import prepare
from exports.precision.sensitivity import Loss, StageQuantizer, keep_sensitive
from exports.stage_runner import StageRunner
from training.data.dataset import Split


def measurement(correct: int, samples: int = 1000) -> Measurement:
    """A network of one exit that is correct on `correct` of `samples`."""
    labels = np.zeros(samples, np.int64)
    logits = np.zeros((1, samples, 2), np.float32)
    logits[0, np.arange(samples), (np.arange(samples) >= correct).astype(int)] = 1
    table = Table(logits, labels)
    return Measurement(table, table, Scaling((1.0,), (1.0,), (1.0,)))


@pytest.mark.parametrize(("correct", "too_many"), [(695, False), (694, True), (720, False)])
def test_more_than_half_a_point_is_too_much(correct: int, too_many: bool) -> None:
    exact = (Accuracy(single=70.0, running=70.0),)
    record = Conversion(
        scheme="u8s8", images=256, kept=(), held_out=exact, test=exact, agreement=(99.0,)
    )
    result = Converted((), record, measurement(correct))
    lost = loss("int8", result)
    assert (lost is not None) == too_many
    assert lost is None or re.search(r"0\.60 points .* more than 0\.5$", lost)


@pytest.mark.parametrize(("correct", "too_many"), [(68, False), (67, True)])
def test_two_of_a_hundred_samples_are_not_too_many(correct: int, too_many: bool) -> None:
    exact = (Accuracy(single=70.0, running=70.0),)
    record = Conversion(
        scheme="u8s8", images=256, kept=(), held_out=exact, test=exact, agreement=(99.0,)
    )
    result = Converted((), record, measurement(correct, samples=100))
    lost = loss("int8", result)
    assert (lost is not None) == too_many
    assert lost is None or "3.00 points" in lost


@pytest.mark.parametrize(("lost", "acceptable"), [(1, True), (2, True), (3, False)])
def test_one_or_two_answers_of_a_few_samples_are_chance(lost: int, acceptable: bool) -> None:
    assert Loss(lost, 0, 60).acceptable == acceptable


@pytest.mark.parametrize(
    ("lost", "won", "acceptable"),
    [(5, 0, True), (34, 19, False), (33, 22, True), (60, 10, False), (600, 560, False)],
)
def test_a_small_or_insignificant_loss_is_acceptable(lost: int, won: int, acceptable: bool) -> None:
    """Of 5000 samples 5 are 0.1 points; a loss of 11 in 55 changes is not significant; 40 are too many."""
    assert Loss(lost, won, 5000).acceptable == acceptable


def coarse_channel(stage: int) -> bytes:
    """A stage that classifies whether green or blue is brighter. In stage 1 red is a thousand times
    larger before the convolution drops it, so that one scale for the three channels is too coarse."""
    factors = np.float32([1000, 1, 1] if stage == 1 else [1, 1, 1]).reshape(1, 3, 1, 1) / 255
    weights = {
        "factors": factors if stage == 1 else np.float32(1).reshape(1, 1, 1, 1),
        "kernel": np.float32([[0, 0, 0], [0, 1, 0], [0, 0, 1]]).reshape(3, 3, 1, 1),
        "head": 50 * np.float32([[0, 0], [1, 0], [0, 1]]),
    }
    name = "image" if stage == 1 else "features1"
    features = "features1" if stage == 1 else "last"
    front = [
        helper.make_node("Cast", [name], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "factors"], ["ready"]),
    ]
    nodes = [
        *(front if stage == 1 else []),
        helper.make_node(
            "Conv", ["ready" if stage == 1 else name, "kernel"], [features], name="conv"
        ),
        helper.make_node("GlobalAveragePool", [features], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"], name="head"),
    ]
    input_type = (
        (TensorProto.UINT8, ["n", 2, 2, 3]) if stage == 1 else (TensorProto.FLOAT, ["n", 3, 2, 2])
    )
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])]
    if stage == 1:
        outputs.insert(
            0, helper.make_tensor_value_info(features, TensorProto.FLOAT, ["n", 3, 2, 2])
        )
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info(name, *input_type)],
        outputs,
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def test_the_node_that_loses_accuracy_stays_in_float32() -> None:
    rng = np.random.default_rng(0)
    images: NDArray[np.uint8] = rng.integers(0, 256, (400, 2, 2, 3)).astype(np.uint8)
    green, blue = images[..., 1].mean((1, 2)), images[..., 2].mean((1, 2))
    split = Split(images, (blue > green).astype(np.int64))
    stages = (coarse_channel(1), coarse_channel(2))
    runner = StageRunner(stages)
    prepared = [
        prepare(stage, inputs) for stage, inputs in zip(stages, runner.inputs(images), strict=True)
    ]
    messages: list[str] = []
    quantizer = StageQuantizer(stages, tuple(prepared), "u8s8")
    kept = keep_sensitive(quantizer, split, runner.logits(images), messages.append)
    assert "conv" in kept[0]
    assert kept[1] == frozenset()
    exits = StageRunner(quantizer.build(kept)).logits(images).argmax(axis=2)
    assert ((exits == split.labels).mean(axis=1) > 0.98).all()
    assert "1 nodes left in float32" in messages[-1]
