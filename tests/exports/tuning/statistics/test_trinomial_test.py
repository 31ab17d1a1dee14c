"""The test of earlier certificates holds its level, computed exactly where possible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exports.tuning.statistics.trinomial_test import _tail, drop_bound, drop_holds
from tests.exports.tuning.statistics.outcomes import trinomial

SAMPLES = 60
RATES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.35)


@pytest.fixture(scope="module")
def limits() -> np.ndarray:
    """The limit at 90 % for every outcome of SAMPLES draws; 1 for impossible outcomes."""
    table = np.ones((SAMPLES + 1, SAMPLES + 1))
    for i in range(SAMPLES + 1):
        for j in range(SAMPLES + 1 - i):
            table[i, j] = drop_bound(i, j, SAMPLES, 0.9)
    return table


@pytest.mark.parametrize("losses", RATES)
@pytest.mark.parametrize("gains", RATES)
def test_the_true_drop_exceeds_its_limit_no_more_often_than_stated(
    losses: float, gains: float, limits: np.ndarray
) -> None:
    misses = trinomial(SAMPLES, losses, gains)[limits < losses - gains - 1e-12].sum()
    assert misses <= 0.1


def test_the_limit_is_close_to_the_normal_approximation() -> None:
    """2,500 samples, 5 % of disagreement: within 15 % of the normal approximation."""
    losses, gains = 75, 50
    normal = (losses - gains) / 2500 + 1.645 * np.sqrt(losses + gains) / 2500
    assert normal < drop_bound(losses, gains, 2500, 0.95) < 1.15 * normal


@given(
    st.integers(0, 30), st.integers(0, 30), st.integers(70, 300), st.sampled_from([0.9, 0.95, 0.99])
)
def test_a_drop_holds_if_its_limit_is_permitted(
    losses: int, gains: int, samples: int, confidence: float
) -> None:
    bound = drop_bound(losses, gains, samples, confidence)
    assert bound >= max(losses - gains, 0) / samples
    assert drop_holds(losses, gains, samples, bound + 1e-6, confidence)
    if bound > 1e-6:
        assert not drop_holds(losses, gains, samples, bound - 1e-6, confidence)
    assert drop_bound(losses + 1, gains, samples, confidence) >= bound - 1e-9
    assert drop_bound(losses, gains, samples, confidence + 0.005) >= bound - 1e-9


@given(st.integers(-8, 8), st.integers(20, 60), st.floats(0.01, 0.4), st.floats(0.05, 0.5))
def test_the_rarest_tail_is_at_the_largest_disagreement(
    difference: int, samples: int, drop: float, largest: float
) -> None:
    """The statement of the proof, checked by summing the trinomial distribution."""
    drop = min(drop, largest)
    assume(drop >= (difference + 2) / (samples - 1))
    i, j = np.indices((samples + 1, samples + 1))

    def tail(disagreement: float) -> float:
        table = trinomial(samples, (disagreement + drop) / 2, (disagreement - drop) / 2)
        return float(table[i - j <= difference].sum())

    worst = _tail(difference, samples, drop, largest)
    assert worst == pytest.approx(tail(largest), abs=1e-9)
    for disagreement in np.linspace(drop, largest, 5):
        assert tail(disagreement) <= worst + 1e-9


def test_a_policy_that_disagrees_on_more_than_half_has_no_limit() -> None:
    assert drop_bound(30, 40, 100, 0.95) == 1.0
    assert not drop_holds(30, 40, 100, 0.9, 0.95)
