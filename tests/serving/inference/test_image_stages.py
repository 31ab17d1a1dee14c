"""Bundles of format 2, in which stages after the first take the image."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from exports.bundle.errors import BundleError
from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from serving.inference.engine import Engine
from serving.inference.runners import DeviceRunner, take_graph
from serving.scheduling.costs import BATCH_SIZES, measure
from tests.serving.tiny_bundle import EXITS, stage_bytes, write_tiny_bundle

EARLY = Policy(thresholds=(0.6, 0.5), max_exit=EXITS)
POLICIES = (
    EARLY,
    EARLY.model_copy(update={"combine": "running"}),
    EARLY.override(mode="ensemble"),
    EARLY.override(mode="exit", max_exit=2),
    EARLY.override(threshold=0),
    EARLY.override(threshold=2),
)
Images = NDArray[np.uint8]


def cascade_of(folder: Path, image_stages: Collection[int], **options: Any) -> Bundle:
    return load_bundle(write_tiny_bundle(folder / "tiny", image_stages=image_stages, **options))


@pytest.fixture(params=[(1, 2), (1, 3), (1, 2, 3)], ids=str)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return cascade_of(tmp_path, request.param)


@pytest.fixture(params=["host", "device"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Engine:
    """An engine with the runner for CPUs, or with that for GPUs and the CPU as its device."""
    engine = Engine(bundle)
    if request.param == "device":
        sessions = [ort.InferenceSession(content) for content in bundle.stages]
        take = {"float32": ort.InferenceSession(take_graph("float32"))}
        runner = DeviceRunner(sessions, take, "cpu", ort)
        engine._runner, engine.take, engine.join = runner, runner.take, runner.join
    return engine


@pytest.mark.parametrize("policy", POLICIES)
def test_answers_are_those_of_the_stages_logits(
    engine: Engine, bundle: Bundle, images: Images, policy: Policy
) -> None:
    answers = engine.classify(images, policy)
    expected = simulate(policy, StageRunner(bundle.stages).logits(images), bundle.manifest.scaling)
    assert [answer.exit for answer in answers] == expected.exits.tolist()
    assert [answer.index for answer in answers] == expected.predictions.tolist()
    np.testing.assert_allclose([a.confidence for a in answers], expected.confidence, atol=1e-5)


def test_samples_of_one_batch_may_have_different_policies(engine: Engine, images: Images) -> None:
    policies = [POLICIES[i % len(POLICIES)] for i in range(len(images))]
    mixed = engine.classify(images, policies)
    for image, policy, found in zip(images, policies, mixed, strict=True):
        (alone,) = engine.classify(image[None], policy)
        assert (found.exit, found.index) == (alone.exit, alone.index)
        np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-5)


def test_every_stage_runs_only_on_samples_that_stayed(bundle: Bundle, images: Images) -> None:
    batches: list[tuple[int, int]] = []
    engine = Engine(bundle, on_stage=lambda stage, batch, seconds: batches.append((stage, batch)))
    exits = [answer.exit for answer in engine.classify(images, EARLY)]
    assert set(exits) == {1, 2, 3}
    deeper = [sum(exit_ >= stage for exit_ in exits) for stage in (1, 2, 3)]
    assert batches == list(zip((1, 2, 3), deeper, strict=True))


def test_a_stage_before_the_image_has_no_features(engine: Engine, images: Images) -> None:
    inputs = images
    for stage, entry in enumerate(engine.manifest.exits, 1):
        output = engine.run_stage(stage, images if entry.input == "image" else inputs)
        assert (output.features is None) == (entry.feature_shape is None)
        inputs = output.features


def test_it_is_warmed_up_and_measured(engine: Engine) -> None:
    engine.warm_up()
    costs = measure(engine)
    for stage in range(1, EXITS + 1):
        assert 0 < costs.seconds(stage, 1) <= costs.seconds(stage, BATCH_SIZES[-1])


def test_quantised_features_meet_image_stages(tmp_path: Path, images: Images) -> None:
    bundle = cascade_of(tmp_path, (1, 2), kind="uint8")
    assert [entry.feature_type for entry in bundle.manifest.exits] == [
        "float32",
        "uint8",
        "float32",
    ]
    found = Engine(bundle).classify(images, EARLY)
    expected = simulate(EARLY, StageRunner(bundle.stages).logits(images), bundle.manifest.scaling)
    assert [answer.exit for answer in found] == expected.exits.tolist()


@pytest.mark.parametrize(
    ("stage", "content", "reason"),
    [
        (3, stage_bytes(3), r"stage3.onnx has the inputs features2 .*, not image tensor\(uint8\)"),
        (2, stage_bytes(2), "stage2.onnx has .* outputs features2 .*, not .* and logits"),
    ],
    ids=["a stage that takes features", "a stage that returns features"],
)
def test_a_graph_that_does_not_match_the_manifest_is_refused(
    tmp_path: Path, stage: int, content: bytes, reason: str
) -> None:
    with pytest.raises(BundleError, match=reason):
        Engine(cascade_of(tmp_path, (1, 3), stages={stage: content}))
