"""How often and how fast canaries are rolled back, in simulations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from serving.canary.bounds import (
    FALSE_ROLLBACKS,
    MIN_OBSERVATIONS,
    QUANTILES,
    Bounds,
    Evidence,
    slow_limit,
)
from serving.canary.side import MIN_ANSWERS, WINDOW, Times
from serving.confidence_sequence import BernoulliSequence

RUNS = 1000
LENGTH = 3000


def ever_above(p: float, bound: float, level: float, rng: np.random.Generator) -> bool:
    """Whether a sequence of LENGTH trials of probability `p` is ever above `bound`. That begins only with an
    event, so only these are looked at."""
    positions = np.flatnonzero(rng.random(LENGTH) < p) + 1
    return any(
        BernoulliSequence(level, int(position), number).is_above(bound)
        for number, position in enumerate(positions, 1)
    )


def test_without_trials_nothing_is_known() -> None:
    empty = BernoulliSequence(0.01)
    assert (empty.interval(), empty.rate, empty.is_above(0)) == ((0.0, 1.0), 0.0, False)


@pytest.mark.parametrize("p", [0.01, 0.1])
def test_the_sequence_is_ever_wrong_no_more_often_than_its_level(p: float) -> None:
    rng = np.random.default_rng(0)
    wrong = sum(ever_above(p, p, 0.1, rng) for _ in range(RUNS))
    assert wrong <= 0.1 * RUNS


def test_canaries_at_their_bounds_are_rarely_rolled_back() -> None:
    """Each of the four tests has a quarter of FALSE_ROLLBACKS, here of 1,000 canaries at the bound of
    errors."""
    rng, level = np.random.default_rng(1), Evidence().errors.level
    assert level == FALSE_ROLLBACKS / 4
    wrong = sum(ever_above(0.01, 0.01, level, rng) for _ in range(RUNS))
    assert wrong <= 8  # 2.5 at most are expected


def test_an_equal_canary_is_rarely_slow_enough_to_be_rolled_back() -> None:
    """The stable version's percentile is an estimate, and times have a heavy tail."""
    rng, bounds, wrong = np.random.default_rng(2), Bounds(), 0
    for _ in range(50):
        evidence, stable = Evidence(), Times()
        for seconds in rng.lognormal(0, 1, MIN_ANSWERS):
            stable.add(seconds)
        for _ in range(300):
            for seconds in rng.lognormal(0, 1, 3):
                stable.add(seconds)
            seconds = rng.lognormal(0, 1)
            for quantile, slow in zip(QUANTILES, evidence.slow, strict=True):
                found = stable.quantile(quantile)
                assert found is not None
                slow.add(bool(seconds > slow_limit(found, bounds.max_latency_ratio, 0.25)))
            if evidence.verdict(bounds) is not None:
                wrong += 1
                break
    assert wrong == 0


@pytest.mark.parametrize(
    ("broken", "within"), [(1.0, MIN_OBSERVATIONS), (0.5, 30), (0.1, 200), (0.05, 600)]
)
def test_a_canary_that_fails_is_found_soon(broken: float, within: int) -> None:
    """In 19 of 20 runs, at a bound of 1 %."""
    rng, found = np.random.default_rng(3), []
    for _ in range(100):
        evidence, count = Evidence(), 0
        while evidence.verdict(Bounds()) is None:
            evidence.errors.add(bool(rng.random() < broken))
            count += 1
        found.append(count)
    assert np.quantile(found, 0.95) <= within


def test_each_rule_has_its_reason_and_needs_some_observations() -> None:
    bounds = Bounds(min_agreement=0.8)
    rules: dict[str, Callable[[Evidence], BernoulliSequence]] = {
        "error_rate": lambda evidence: evidence.errors,
        "latency": lambda evidence: evidence.slow[1],
        "agreement": lambda evidence: evidence.disagreements,
    }
    for reason, rule in rules.items():
        evidence = Evidence()
        for _ in range(MIN_OBSERVATIONS - 1):
            rule(evidence).add(True)
        assert evidence.verdict(bounds) is None
        rule(evidence).add(True)
        assert evidence.verdict(bounds) == reason


def test_a_canary_whose_usual_request_is_slow_is_found_though_its_slowest_are_not() -> None:
    """Such as one that never leaves early: the slowest requests of the stable version take as long."""
    rng, stable = np.random.default_rng(4), Times()
    for seconds in rng.choice([1.0, 4.0], 1000, p=[0.7, 0.3]):
        stable.add(seconds)
    evidence, count = Evidence(), 0
    while evidence.verdict(Bounds()) is None:
        for quantile, slow in zip(QUANTILES, evidence.slow, strict=True):
            found = stable.quantile(quantile)
            assert found is not None
            slow.add(slow_limit(found, 2.0, 0.1) < 4.0)
        count += 1
    assert count < 30


def test_disagreement_rolls_nothing_back_without_a_bound() -> None:
    evidence = Evidence(disagreements=BernoulliSequence(0.01, 1000, 1000))
    assert evidence.verdict(Bounds()) is None


def test_the_limit_of_slow_requests_allows_for_larger_batches_at_large_shares() -> None:
    assert slow_limit(0.01, 2.0, 0.1) == slow_limit(0.01, 2.0, 0.5) == 0.02
    assert slow_limit(0.01, 2.0, 0.9) == pytest.approx(0.18)
    assert slow_limit(0.01, 2.0, 1.0) > 1000


def test_only_the_latest_times_count() -> None:
    times = Times()
    assert (times.mean(), times.quantile(0.5)) == (None, None)
    times.add(3.0)
    assert (times.mean(), times.quantile(0.5)) == (3.0, None)
    for _ in range(WINDOW):
        times.add(1.0)
    assert (times.mean(), times.quantile(0.99)) == (1.0, 1.0)
