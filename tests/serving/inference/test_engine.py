from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from exports.bundle.errors import BundleError, PolicyError
from exports.bundle.policy import Measure, Mode, Policy, measure_confidence
from exports.bundle.reader import Bundle, load_bundle
from exports.tuning.simulation import simulate
from serving.errors import SettingsError
from serving.inference.engine import Engine
from tests.serving.tiny_bundle import EXITS, LABELS, stage_bytes, write_tiny_bundle

EARLY = Policy(thresholds=(0.6, 0.5), max_exit=3)
Images = NDArray[np.uint8]


def all_logits(engine: Engine, images: Images) -> NDArray[np.float32]:
    inputs, logits = images, []
    for stage in range(1, engine.exits + 1):
        output = engine.run_stage(stage, inputs)
        logits.append(output.logits)
        inputs = output.features
    return np.stack(logits)


def test_samples_of_one_batch_leave_at_different_exits(engine: Engine, images: Images) -> None:
    exits = {prediction.exit for prediction in engine.classify(images, EARLY)}
    assert exits == {1, 2, 3}


@pytest.mark.parametrize("combine", ["single", "running"])
@pytest.mark.parametrize("measure", ["max_prob", "margin", "entropy"])
@pytest.mark.parametrize("mode", ["early_exit", "ensemble", "exit"])
def test_a_batch_gets_the_same_answers_as_single_samples_and_the_simulation(
    engine: Engine, bundle: Bundle, images: Images, mode: str, measure: str, combine: str
) -> None:
    policy = EARLY.model_copy(update={"mode": mode, "measure": measure, "combine": combine})
    together = engine.classify(images, policy)
    alone = [engine.classify(image[None], policy)[0] for image in images]
    expected = simulate(policy, all_logits(engine, images), bundle.manifest.scaling)
    for answers in (together, alone):
        assert [a.exit for a in answers] == expected.exits.tolist()
        assert [a.index for a in answers] == expected.predictions.tolist()
        np.testing.assert_allclose(
            [a.confidence for a in answers], expected.confidence, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("measure", ["max_prob", "margin", "entropy"])
def test_confidence_is_the_probability_of_the_class_under_every_measure(
    engine: Engine, images: Images, measure: Measure
) -> None:
    policy = EARLY.model_copy(update={"measure": measure})
    for prediction in engine.classify(images, policy):
        confidence = prediction.probabilities[prediction.index]
        assert prediction.confidence == pytest.approx(confidence, abs=1e-6)
        (measured,) = measure_confidence(prediction.probabilities[None], measure)
        assert (prediction.measure, prediction.measured) == (measure, pytest.approx(measured))
        if prediction.reason == "confident":
            assert prediction.measured >= policy.thresholds[prediction.exit - 1]


@pytest.mark.parametrize("mode", ["early_exit", "ensemble", "exit"])
def test_below_reject_below_the_reason_is_unsure_and_all_else_stays(
    engine: Engine, images: Images, mode: Mode
) -> None:
    policy = EARLY.override(mode=mode)
    plain = engine.classify(images, policy)
    least = float(np.median([prediction.confidence for prediction in plain]))
    rejecting = engine.classify(images, policy.override(reject_below=least))
    assert {prediction.unsure for prediction in rejecting} == {True, False}
    for before, after in zip(plain, rejecting, strict=True):
        assert after.reason == ("unsure" if before.confidence < least else before.reason)
        assert (after.exit, after.index) == (before.exit, before.index)


def test_with_threshold_0_all_leave_at_exit_1(engine: Engine, images: Images) -> None:
    policy = EARLY.override(threshold=0)
    assert {p.exit for p in engine.classify(images, policy)} == {1}


def test_with_a_threshold_above_1_all_go_to_full_depth(engine: Engine, images: Images) -> None:
    policy = EARLY.override(threshold=1.01)
    assert {p.exit for p in engine.classify(images, policy)} == {EXITS}


@pytest.mark.parametrize("mode", ["early_exit", "ensemble", "exit"])
def test_nothing_goes_deeper_than_max_exit(bundle: Bundle, images: Images, mode: str) -> None:
    ran: list[int] = []
    engine = Engine(bundle, on_stage=lambda stage, batch, seconds: ran.append(stage))
    policy = EARLY.model_copy(update={"mode": mode, "thresholds": (1.1, 1.1), "max_exit": 2})
    assert {p.exit for p in engine.classify(images, policy)} == {2}
    assert ran == [1, 2]


def test_samples_of_one_batch_may_have_different_policies(engine: Engine, images: Images) -> None:
    kinds = [
        EARLY,
        EARLY.override(threshold=0),
        EARLY.override(mode="ensemble"),
        EARLY.override(mode="exit", max_exit=2),
    ]
    policies = [kinds[i % len(kinds)] for i in range(len(images))]
    mixed = engine.classify(images, policies)
    for image, policy, prediction in zip(images, policies, mixed, strict=True):
        alone = engine.classify(image[None], policy)[0]
        assert (prediction.exit, prediction.index) == (alone.exit, alone.index)
        np.testing.assert_allclose(prediction.probabilities, alone.probabilities, atol=1e-5)


def test_probabilities_are_one_per_class_and_sum_to_one(engine: Engine, images: Images) -> None:
    for prediction in engine.classify(images, EARLY):
        assert prediction.probabilities.shape == (len(LABELS),)
        assert prediction.probabilities.dtype == np.float32
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert prediction.index == prediction.probabilities.argmax()


def test_later_stages_run_only_on_samples_that_stayed(bundle: Bundle, images: Images) -> None:
    batches: list[tuple[int, int]] = []
    engine = Engine(bundle, on_stage=lambda stage, batch, seconds: batches.append((stage, batch)))
    exits = [p.exit for p in engine.classify(images, EARLY)]
    deeper = [sum(exit_ >= stage for exit_ in exits) for stage in (1, 2, 3)]
    assert batches == list(zip((1, 2, 3), deeper, strict=True))


def test_warming_up_is_not_observed(bundle: Bundle) -> None:
    observed: list[int] = []
    Engine(bundle, on_stage=lambda stage, batch, seconds: observed.append(stage)).warm_up()
    assert observed == []


def test_no_images_have_no_predictions(engine: Engine, images: Images) -> None:
    assert engine.classify(images[:0], EARLY) == []


@pytest.mark.parametrize("wrong", [np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 8, 8, 3))])
def test_images_of_another_shape_or_type_are_refused(
    engine: Engine, wrong: NDArray[np.uint8]
) -> None:
    with pytest.raises(ValueError, match="uint8"):
        engine.classify(wrong, EARLY)


def test_a_policy_for_another_network_is_refused(engine: Engine, images: Images) -> None:
    with pytest.raises(PolicyError, match="2 exits"):
        engine.classify(images, Policy(thresholds=(0.5,), max_exit=2))


@pytest.mark.parametrize(
    ("stage", "content", "reason"),
    [
        (2, b"no graph at all", "stage2.onnx is not an ONNX graph"),
        (2, stage_bytes(3), "stage2.onnx has the inputs features2"),
        (
            1,
            stage_bytes(1, kind="uint8"),
            r"features1 tensor\(uint8\).*not .*features1 tensor\(float",
        ),
        (2, stage_bytes(2, kind="int8"), r"features1 tensor\(int8\).*not features1 tensor\(float"),
        (3, stage_bytes(3, classes=4), r"stage3.onnx gives outputs of the shapes \[\(2, 4\)\]"),
    ],
)
def test_a_graph_that_does_not_match_the_manifest_is_refused(
    tmp_path: Path, stage: int, content: bytes, reason: str
) -> None:
    broken = write_tiny_bundle(tmp_path / "broken", stages={stage: content})
    with pytest.raises(BundleError, match=reason):
        Engine(load_bundle(broken))


def test_a_manifest_without_feature_types_means_float32(tmp_path: Path) -> None:
    old = write_tiny_bundle(tmp_path / "old")
    manifest = (old / "manifest.json").read_text()
    (old / "manifest.json").write_text(manifest.replace('"feature_type":"float32",', ""))
    assert "feature_type" not in (old / "manifest.json").read_text()
    Engine(load_bundle(old))


def test_cuda_is_an_error_if_onnxruntime_has_no_cuda(bundle: Bundle, monkeypatch: object) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(SettingsError, match=r"offramp\[gpu\]"):
        Engine(bundle, provider="cuda")


def test_cuda_is_an_error_if_there_is_no_driver(bundle: Bundle, monkeypatch: object) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr("serving.inference.providers.DRIVER", "libnone.so.1")
    with pytest.raises(SettingsError, match=r"no NVIDIA driver here \(libnone\.so\.1\)"):
        Engine(bundle, provider="cuda")


def test_auto_uses_the_cpu_if_there_is_no_gpu(bundle: Bundle, monkeypatch: object) -> None:
    monkeypatch.setattr("serving.inference.providers.gpu_present", lambda: False)
    assert Engine(bundle, provider="auto").provider == "CPUExecutionProvider"


def test_a_shared_pool_opens_without_warnings(bundle_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from exports.bundle.reader import load_bundle; "
        "from serving.inference.engine import Engine; "
        "Engine(load_bundle(Path(sys.argv[1])), threads=2, pool='shared').warm_up()"
    )
    command = [sys.executable, "-c", code, str(bundle_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
