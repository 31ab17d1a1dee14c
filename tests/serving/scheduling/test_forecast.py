from __future__ import annotations

import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.scheduling.costs import CostTable
from serving.scheduling.forecast import MAX_POLICIES, Forecast, Forecasts
from serving.scheduling.queues import ModelQueues
from tests.serving.tiny_bundle import EXITS

COSTS = CostTable([{1: 0.001}] * EXITS)
EARLY = Policy(thresholds=(0.6, 0.5), max_exit=EXITS)
SHARES = (0.5, 0.25, 0.25)


def test_a_forecast_starts_with_the_shares_of_the_manifest() -> None:
    forecast = Forecast(EARLY, COSTS, SHARES)
    # All run stage 1, half of them stage 2, a quarter stage 3.
    assert forecast.remaining(1) == pytest.approx(0.00175)
    assert forecast.remaining(2) == pytest.approx(0.0015)
    assert forecast.remaining(3) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ({"threshold": 0}, 1),
        ({"threshold": 1.5}, 3),
        ({"mode": "ensemble"}, 3),
        ({"mode": "exit", "max_exit": 2}, 2),
        ({"threshold": 1.5, "max_exit": 1}, 1),
    ],
)
def test_a_policy_with_a_fixed_depth_needs_no_statistics(
    overrides: dict[str, object], stages: int
) -> None:
    policy = EARLY.override(**overrides)
    assert Forecast(policy, COSTS, SHARES).remaining(1) == pytest.approx(0.001 * stages)


def test_a_forecast_follows_the_observed_shares() -> None:
    forecast = Forecast(EARLY, COSTS, SHARES)
    for _ in range(1000):
        forecast.observe(1, 4, 1)
        forecast.observe(2, 3, 0)
    assert forecast.remaining(1) == pytest.approx(0.001 * (1 + 0.75 + 0.75), rel=0.02)


def test_statistics_are_kept_for_a_limited_number_of_policies(bundle: Bundle) -> None:
    forecasts = Forecasts(bundle.manifest, COSTS)
    policies = [Policy(thresholds=(i / 1000, 0.5), max_exit=EXITS) for i in range(2 * MAX_POLICIES)]
    kept = forecasts.of(policies[0])
    for policy in policies:
        forecasts.of(policy)
        assert forecasts.of(policies[0]) is kept
    assert len(forecasts._by_policy) == MAX_POLICIES


def test_expected_seconds_follow_the_measured_batches(engine: Engine) -> None:
    queues = ModelQueues(engine, COSTS)
    for _ in range(200):
        queues.observe(1, 1, 0.003)
    assert queues.seconds(2, 1) == pytest.approx(0.003, rel=0.01)
