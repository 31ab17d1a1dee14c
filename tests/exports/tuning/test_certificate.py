"""The limits hold with the stated probability, which is computed exactly where possible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from exports.tuning.certificate import (
    _tail,
    drop_bound,
    drop_holds,
    halves,
    proportion_bound,
    samples_needed,
    split_sha256,
)

SAMPLES = 60
RATES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.35)


def trinomial(samples: int, p: float, q: float) -> np.ndarray:
    """P(losses = i, gains = j) of `samples` draws, [samples + 1, samples + 1]."""
    table = np.zeros((samples + 1, samples + 1))
    for i, chance in enumerate(binom.pmf(np.arange(samples + 1), samples, p)):
        j = np.arange(samples - i + 1)
        table[i, : samples - i + 1] = chance * binom.pmf(j, samples - i, q / (1 - p))
    return table


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


@pytest.mark.parametrize(("count", "samples"), [(0, 30), (3, 100), (57, 2500), (99, 100)])
def test_the_limit_of_a_proportion_is_that_of_clopper_and_pearson(count: int, samples: int) -> None:
    expected = beta.ppf(0.95, count + 1, samples - count)
    assert proportion_bound(count, samples, 0.95) == pytest.approx(expected, rel=1e-9)
    assert proportion_bound(samples, samples, 0.95) == 1.0


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.003, 0.001), (0.004, 0.0)])
def test_the_samples_needed_are_enough_and_far_fewer_are_not(rates: tuple[float, float]) -> None:
    needed = samples_needed(*rates, 0.005, 0.95)
    assert needed is not None

    def holds(samples: int) -> bool:
        lost, gained = (round(rate * samples) for rate in rates)
        return drop_holds(lost, gained, samples, 0.005, 0.95)

    assert holds(round(1.1 * needed))
    assert not holds(round(0.8 * needed))


def test_no_number_of_samples_certifies_too_large_a_drop() -> None:
    assert samples_needed(0.02, 0.01, 0.01, 0.95) is None


def test_the_halves_are_disjoint_and_deterministic() -> None:
    chosen, certified = halves(101)
    assert (len(chosen), len(certified)) == (50, 51)
    assert sorted([*chosen, *certified]) == list(range(101))
    again = halves(101)
    assert (again[0] == chosen).all()
    assert (again[1] == certified).all()
    assert (halves(1000)[0] >= 500).sum() == pytest.approx(250, abs=50)


def test_the_hash_depends_on_source_and_samples() -> None:
    one, other = halves(10)
    assert len({split_sha256(s, i) for s in ("a" * 64, "b" * 64) for i in (one, other)}) == 4
