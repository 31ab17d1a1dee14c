from __future__ import annotations

import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.scheduling.costs import (
    BATCH_OVERHEAD_S,
    MAX_BATCH,
    MAX_BATCH_S,
    CostTable,
    DecodeCosts,
    measure,
)
from serving.scheduling.forecast import MAX_POLICIES, Forecast, Forecasts
from serving.scheduling.queues import ModelQueues
from tests.serving.tiny_bundle import EXITS

EVEN = CostTable([{1: 0.001}] * EXITS)


def test_sizes_between_the_measured_ones_are_interpolated() -> None:
    table = CostTable([{1: 0.010, 2: 0.012, 4: 0.020}])
    assert table.seconds(1, 3) == pytest.approx(0.016)
    assert table.seconds(1, 32) == pytest.approx(0.160)


def test_a_larger_batch_must_pay() -> None:
    # Half the price an image at 4, and nothing more to be had after that.
    paying = CostTable([{1: 0.004, 2: 0.005, 4: 0.008, 8: 0.0159, 16: 0.0318, 32: 0.0635}])
    assert paying.best_batch(1) == 4
    assert paying.seconds_per_image(1) == pytest.approx(0.002)
    # Twice the images, twice the time: they are better answered one by one.
    assert CostTable([{1: 0.004, 32: 0.128}]).best_batch(1) == 1


def test_no_batch_holds_a_worker_for_long() -> None:
    long = MAX_BATCH_S * 0.9
    table = CostTable([{1: long, 2: long * 1.2, 32: long * 2}])
    assert table.best_batch(1) == 1


def test_a_larger_batch_never_seems_to_take_less_time() -> None:
    table = CostTable([{1: 0.003, 2: 0.002, 4: 0.004}])
    seconds = [table.seconds(1, size) for size in range(MAX_BATCH + 1)]
    assert seconds == sorted(seconds)


def test_measuring_is_not_observed(bundle: Bundle) -> None:
    seen: list[int] = []
    table = measure(Engine(bundle, on_stage=lambda stage, batch, seconds: seen.append(stage)))
    assert seen == []
    assert all(table.seconds(stage, 1) > BATCH_OVERHEAD_S for stage in range(1, EXITS + 1))


def test_small_stages_are_worth_sharing_for_what_a_batch_costs_besides(bundle: Bundle) -> None:
    table = measure(Engine(bundle))
    assert all(table.best_batch(stage) > 1 for stage in range(1, EXITS + 1))


def test_decoding_is_learned_by_the_size_of_files() -> None:
    costs = DecodeCosts()
    assert costs.estimate(1_000_000) > costs.estimate(1000)
    for _ in range(100):
        costs.observe(1000, 0.5)
    assert costs.estimate(1000) == pytest.approx(0.5, rel=0.01)
    assert costs.estimate(1_000_000) < 0.1


# Forecasts


def test_a_forecast_starts_with_the_shares_of_the_manifest() -> None:
    policy = Policy(thresholds=(0.6, 0.5), max_exit=EXITS)
    forecast = Forecast(policy, EVEN, (0.5, 0.25, 0.25))
    # All run stage 1, half of them stage 2, a quarter stage 3.
    assert forecast.remaining(1) == pytest.approx(0.00175)
    assert forecast.remaining(2) == pytest.approx(0.0015)
    assert forecast.remaining(3) == pytest.approx(0.001)
    assert forecast.remaining(0) == forecast.remaining(1)


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
def test_what_a_policy_settles_needs_no_statistics(
    overrides: dict[str, object], stages: int
) -> None:
    policy = Policy(thresholds=(0.6, 0.5), max_exit=EXITS).override(**overrides)
    assert Forecast(policy, EVEN, (0.5, 0.25, 0.25)).remaining(1) == pytest.approx(0.001 * stages)


def test_a_forecast_follows_what_it_sees() -> None:
    forecast = Forecast(Policy(thresholds=(0.6, 0.5), max_exit=EXITS), EVEN, (0.5, 0.25, 0.25))
    for _ in range(1000):
        forecast.observe(1, 4, 1)
        forecast.observe(2, 3, 0)
    assert forecast.remaining(1) == pytest.approx(0.001 * (1 + 0.75 + 0.75), rel=0.02)


def test_statistics_of_ever_new_policies_are_bounded(bundle: Bundle) -> None:
    forecasts = Forecasts(bundle.manifest, EVEN)
    policies = [Policy(thresholds=(i / 1000, 0.5), max_exit=EXITS) for i in range(2 * MAX_POLICIES)]
    kept = forecasts.of(policies[0])
    for policy in policies:
        forecasts.of(policy)
        assert forecasts.of(policies[0]) is kept
    assert len(forecasts._by_policy) == MAX_POLICIES


def test_a_line_learns_how_the_host_does(engine: Engine) -> None:
    queues = ModelQueues(engine, EVEN)
    for _ in range(200):
        queues.observe(1, 1, 0.003)
    assert queues.seconds(2, 1) == pytest.approx(0.003, rel=0.01)
