"""Which answers are tested for drift, and what restarts the tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from exports.bundle.reader import Bundle
from serving.drift.metrics import DriftMetrics
from serving.drift.monitor import ANSWERS_PER_S, MAX_BURST, DriftMonitor
from serving.inference.engine import Prediction
from serving.models.registry import LoadedModel, ModelRegistry, open_engine
from serving.settings import Settings
from serving.telemetry.metrics import Metrics
from tests.exports.bundles import INT8
from tests.serving.conftest import Client, running
from tests.serving.requests import CLASSIFY, as_json, as_raw, assert_error, metrics

DRIFT = "/v1/models/tiny/drift"
TESTED = 'offramp_drift_tested_total{model="tiny"}'


@pytest.fixture
def models(bundle: Bundle) -> ModelRegistry:
    registry = ModelRegistry()
    registry.put(open_engine(bundle.path, threads=1, provider="cpu"))
    return registry


@pytest.fixture
def monitor(models: ModelRegistry) -> DriftMonitor:
    """Its thread does not run: the tests call `update`."""
    monitor = DriftMonitor(models, DriftMetrics(CollectorRegistry()))
    monitor.update(0)
    return monitor


@pytest.fixture
def model(models: ModelRegistry) -> LoadedModel:
    return models.get("tiny")


def test_it_counts_answers_of_the_model_in_force(
    monitor: DriftMonitor, model: LoadedModel, expected: list[Prediction]
) -> None:
    monitor.observe(model, expected)
    monitor.update(1)
    status = monitor.status(model)
    assert status is not None
    assert status.answers == len(expected)
    assert status.observed is not None
    shares = status.observed.exit_shares
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert shares[0] == pytest.approx(sum(p.exit == 1 for p in expected) / len(expected), abs=1e-3)


def test_a_new_policy_starts_the_tests_again(
    monitor: DriftMonitor, models: ModelRegistry, model: LoadedModel, expected: list[Prediction]
) -> None:
    monitor.observe(model, expected)
    monitor.update(1)
    before = monitor.status(model)
    other = model.policy.model_copy(update={"thresholds": (2.0, 2.0)})
    changed = models.put(replace(model, policy=other))
    # An answer of before the change comes after it.
    monitor.observe(model, expected)
    monitor.update(2)
    status = monitor.status(changed)
    assert before is not None
    assert status is not None
    assert monitor.status(model) is None
    assert status.answers == 0
    assert before.expected.exit_shares[-1] < 1
    assert status.expected.exit_shares == [0, 0, 1]


def test_answers_unlike_the_table_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The bundle with four exits, and images of noise."""
    models, metrics = ModelRegistry(), Metrics()
    model = models.put(open_engine(INT8, threads=1, provider="cpu"))
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3)).astype(np.uint8)
    predictions = model.engine.classify(noise, model.policy)
    monitor = DriftMonitor(models, DriftMetrics(metrics.registry))
    for second in range(6):
        monitor.observe(model, predictions)
        monitor.update(second)
    status = monitor.status(model)
    assert status is not None
    assert "differ from the calibration table" in status.sentence
    drifting = [signal for signal in status.signals if signal.drifting]
    assert "confidence" in [signal.signal for signal in drifting]
    assert all(signal.since is not None for signal in drifting)
    line = b'offramp_drift{model="cifar100-oto",signal="confidence"} 1.0'
    assert line in metrics.render()
    assert any(status.sentence[:40] in record.message for record in caplog.records)


def test_a_model_that_is_gone_has_no_tests_and_no_gauges(
    models: ModelRegistry, model: LoadedModel
) -> None:
    metrics = Metrics()
    monitor = DriftMonitor(models, DriftMetrics(metrics.registry))
    monitor.update(0)
    assert b'offramp_drift{model="tiny",signal="exits"} 0.0' in metrics.render()
    models.remove("tiny")
    monitor.update(1)
    assert monitor.status(model) is None
    assert b"offramp_drift{" not in metrics.render()


def test_the_number_of_answers_tested_is_bounded_over_time(
    monitor: DriftMonitor, model: LoadedModel, expected: list[Prediction]
) -> None:
    tested = 0

    def newly_tested(answers: int, now: float) -> int:
        nonlocal tested
        repeats = -(-answers // len(expected))
        monitor.observe(model, (expected * repeats)[:answers])
        monitor.update(now)
        status = monitor.status(model)
        assert status is not None
        before, tested = tested, status.answers
        return tested - before

    assert newly_tested(int(MAX_BURST) + 5, 0.0) == MAX_BURST
    assert newly_tested(100, 0.0) == 0
    assert newly_tested(100, 2.0) == 2 * ANSWERS_PER_S
    # Half an answer waits for its other half.
    assert newly_tested(100, 2.0 + 0.5 / ANSWERS_PER_S) == 0
    assert newly_tested(100, 2.0 + 1.0 / ANSWERS_PER_S) == 1
    assert newly_tested(2 * int(MAX_BURST), 10.0**6) == MAX_BURST


@pytest.fixture
def served(settings: Settings) -> Iterator[Client]:
    with running(settings) as client:
        yield client


def wait_until_tested(client: Client, answers: int) -> None:
    deadline = time.monotonic() + 20
    while f"{TESTED} {answers}.0" not in metrics(client):
        assert time.monotonic() < deadline, metrics(client)
        time.sleep(0.05)


def test_requests_with_options_of_their_own_are_not_tested(
    served: Client, pngs: list[bytes]
) -> None:
    for query in ("threshold=0.3", "max_exit=1", "mode=ensemble", "deadline_ms=5000"):
        assert served.post(f"{CLASSIFY}?{query}", **as_raw(pngs[0])).status_code == 200
    served.post(f"{CLASSIFY}/stream?run_all_exits=true", **as_raw(pngs[0]))
    wait_until_tested(served, 0)
    served.post(f"{CLASSIFY}?top_k=2", **as_json(pngs[:3]))
    served.post(f"{CLASSIFY}/stream", **as_raw(pngs[0]))
    wait_until_tested(served, 4)


def test_the_state_is_an_answer_of_the_server(served: Client, pngs: list[bytes]) -> None:
    served.post(CLASSIFY, **as_json(pngs[:3]))
    wait_until_tested(served, 3)
    answer = served.get(DRIFT).json()
    assert answer["sentence"] == "3 answers have been tested: no drift from the calibration table."
    signals = answer["status"]["signals"]
    assert [signal["signal"] for signal in signals] == ["exits", "confidence", "classes"]
    assert not any(signal["drifting"] for signal in signals)
    assert_error(served.get("/v1/models/none/drift"), 404, "not_found")
