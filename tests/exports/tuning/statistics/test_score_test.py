"""The exact test by Tango's statistic holds its level, computed by enumeration, and uses most of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.tuning.statistics import trinomial_test
from exports.tuning.statistics.score_test import (
    _Region,
    _score,
    drop_bound,
    drop_holds,
    drop_interval,
)
from tests.exports.tuning.statistics.outcomes import trinomial


def accepted(samples: int, permitted: float, confidence: float) -> np.ndarray:
    """The outcomes that prove the drop, bool [losses, gains]; impossible ones do not.

    More gains never lose a proof, so each column starts where the one before ended.
    """
    found = np.zeros((samples + 1, samples + 1), dtype=bool)
    first_refused = 0
    for gains in range(samples + 1):
        while first_refused + gains <= samples and drop_holds(
            first_refused, gains, samples, permitted, confidence
        ):
            first_refused += 1
        found[: min(first_refused, samples + 1 - gains), gains] = True
    return found


@pytest.mark.parametrize(
    ("samples", "permitted", "confidence"), [(40, 0.08, 0.9), (60, 0.05, 0.95)]
)
def test_a_drop_that_is_too_large_is_accepted_no_more_often_than_stated(
    samples: int, permitted: float, confidence: float
) -> None:
    """The size of the test: every outcome is enumerated for rates on and beyond the limit."""
    region = accepted(samples, permitted, confidence)
    error = 1 - confidence
    sizes = [
        trinomial(samples, (rate + drop) / 2, (rate - drop) / 2)[region].sum()
        for drop in (permitted, 1.3 * permitted, 2 * permitted)
        for rate in np.linspace(drop, 0.7, 60)
    ]
    assert max(sizes) <= error
    assert max(sizes) > 0.9 * error


@pytest.mark.parametrize("confidence", [0.51, 0.7, 0.95])
@pytest.mark.parametrize("samples", [1, 100])
def test_no_difference_proves_no_drop_below_0(samples: int, confidence: float) -> None:
    assert not drop_holds(0, 0, samples, 0.0, confidence)


@pytest.mark.parametrize(("samples", "permitted", "confidence"), [(40, 0.05, 0.9)])
def test_fewer_losses_and_more_gains_never_lose_a_proof(
    samples: int, permitted: float, confidence: float
) -> None:
    """Barnard's convexity: with it the limit of the hypothesis is its worst case."""
    region = np.array(
        [
            [
                losses + gains <= samples
                and drop_holds(losses, gains, samples, permitted, confidence)
                for gains in range(samples + 1)
            ]
            for losses in range(samples + 1)
        ]
    )
    for losses, gains in np.argwhere(region):
        assert losses == 0 or region[losses - 1, gains]
        assert losses + gains == samples or region[losses, gains + 1]


@given(st.integers(0, 12), st.integers(0, 12), st.floats(0.01, 0.3), st.floats(0, 1))
def test_the_probability_of_a_region_is_the_sum_over_its_outcomes(
    losses: int, gains: int, drop: float, position: float
) -> None:
    samples, rate = 40, drop + position * (0.9 - drop)
    observed = _score(losses, gains, samples, drop)
    region = _Region.up_to(observed, samples, drop, rate)
    table = trinomial(samples, (rate + drop) / 2, (rate - drop) / 2)
    expected = sum(
        table[i, j]
        for i in range(samples + 1)
        for j in range(samples + 1 - i)
        if _score(i, j, samples, drop) <= observed + 1e-9 * (1 + abs(observed))
    )
    assert region.probability(rate) == pytest.approx(expected, abs=1e-9)


def test_the_statistic_is_that_of_tango() -> None:
    """At a drop of 0 it is McNemar's; else the deviation is that of the most likely rates."""
    assert _score(16, 9, 68, 0.0) == pytest.approx((16 - 9) / np.sqrt(16 + 9))
    losses, gains, samples, drop = 7, 4, 50, 0.2
    rates = np.linspace(1e-6, 0.39, 400_001)
    likelihood = losses * np.log(rates + drop) + gains * np.log(rates)
    likelihood += (samples - losses - gains) * np.log(1 - drop - 2 * rates)
    q = rates[likelihood.argmax()]
    expected = (losses - gains - samples * drop) / np.sqrt(samples * (2 * q + drop * (1 - drop)))
    assert _score(losses, gains, samples, drop) == pytest.approx(expected, abs=1e-4)


@settings(max_examples=10)
@given(st.integers(0, 25), st.integers(0, 25), st.integers(100, 2500))
def test_the_limit_is_where_the_test_turns(losses: int, gains: int, samples: int) -> None:
    bound = drop_bound(losses, gains, samples, 0.95)
    assert max(losses - gains, 0) / samples <= bound
    assert drop_holds(losses, gains, samples, bound, 0.95)
    assert bound < 1e-4 or not drop_holds(losses, gains, samples, 0.999 * bound, 0.95)


def test_it_is_sharper_than_the_test_it_replaces() -> None:
    """The limits of 1 to 5 % of disagreement among 2,500 samples."""
    for losses, gains in ((20, 8), (40, 30), (75, 50)):
        new = drop_bound(losses, gains, 2500, 0.95)
        assert new < 0.95 * trinomial_test.drop_bound(losses, gains, 2500, 0.95)
        normal = (losses - gains) / 2500 + 1.645 * np.sqrt(losses + gains) / 2500
        assert new == pytest.approx(normal, rel=0.06)


@pytest.mark.parametrize("rates", [(0.01, 0.005), (0.04, 0.04), (0.1, 0.02), (0.002, 0.0)])
def test_intervals_contain_the_true_drop_nearly_as_often_as_stated(
    rates: tuple[float, float],
) -> None:
    losses, gains = rates
    samples, drop = 300, losses - gains
    random = np.random.default_rng(0)
    draws = random.multinomial(samples, [losses, gains, 1 - losses - gains], 1000)
    intervals = [drop_interval(lost, gained, samples, 0.95) for lost, gained, _ in draws]
    covered = np.mean([low <= drop <= high for low, high in intervals])
    assert 0.93 < covered <= 1.0


def test_an_interval_is_turned_round_with_losses_and_gains() -> None:
    low, high = drop_interval(9.5, 3.25, 120, 0.95)
    assert drop_interval(3.25, 9.5, 120, 0.95) == pytest.approx((-high, -low))
    assert low < 6.25 / 120 < high
    without = drop_interval(0, 0, 120, 0.95)
    assert without == pytest.approx((-0.031, 0.031), abs=1e-3)
