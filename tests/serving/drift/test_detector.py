"""The sequential test: how often it gives a false alarm, and how fast it finds a change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.drift.detector import RUN_ANSWERS, AdaptiveBets, Bets, Detector, TiltBets

CATEGORIES = 12
BETS: dict[str, Callable[[], Bets]] = {
    "tilt": TiltBets,
    "adaptive": lambda: AdaptiveBets(CATEGORIES),
}


def draw(rng: np.random.Generator, shares: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return rng.choice(len(shares), count, p=shares)


def detector(
    rng: np.random.Generator,
    bets: Callable[[], Bets],
    shares: NDArray[np.float64],
    *,
    samples: int,
    limit: float,
) -> Detector:
    """A detector whose table is a new draw of `samples` from `shares`."""
    reference = np.bincount(draw(rng, shares, samples), minlength=len(shares))
    return Detector(reference, bets, answers_per_false_alarm=limit, rng=rng)


@pytest.mark.parametrize(("samples", "part"), [(20, 500), (400, 500), (5000, 500), (400, 20)])
@pytest.mark.parametrize("kind", BETS)
def test_a_false_alarm_is_no_more_likely_than_stated(kind: str, samples: int, part: int) -> None:
    """A table is a sample itself: for each of many tables, answers of the same distribution."""
    rng = np.random.default_rng(samples)
    limit, answers, tables = 2_500.0, 500, 300
    alarms = 0
    for _ in range(tables):
        shares = rng.dirichlet(np.ones(CATEGORIES))
        test = detector(rng, BETS[kind], shares, samples=samples, limit=limit)
        parts = np.array_split(draw(rng, shares, answers), answers // part)
        alarms += any(test.update(part) for part in parts)
    permitted = answers / limit
    assert alarms <= tables * permitted + 3 * np.sqrt(tables * permitted)
    # It is not silent because it tests nothing.
    assert alarms >= 0.1 * tables * permitted


@pytest.mark.parametrize("before", [0, 3_000, RUN_ANSWERS - 50])
def test_a_shift_is_found_whenever_it_begins(before: int) -> None:
    rng = np.random.default_rng(before)
    usual = np.ones(CATEGORIES) / CATEGORIES
    harder = np.linspace(0.5, 1.5, CATEGORIES) / CATEGORIES
    test = detector(rng, TiltBets, usual, samples=5_000, limit=1e8)
    assert test.update(draw(rng, usual, before)) == []
    alarms = test.update(draw(rng, harder, 1_000))
    assert alarms
    assert alarms[0] < 600


def test_a_shift_that_lasts_is_found_again_and_again() -> None:
    """Each run begins with the table alone, so that answers do not become their own reference."""
    rng = np.random.default_rng(3)
    usual = np.ones(CATEGORIES) / CATEGORIES
    harder = np.linspace(0.5, 1.5, CATEGORIES) / CATEGORIES
    test = detector(rng, TiltBets, usual, samples=5_000, limit=1e8)
    alarms = test.update(draw(rng, harder, 100_000))
    gaps = np.diff(alarms)
    assert gaps.max() < 2_000


def test_another_mix_of_categories_is_found_by_adaptive_bets() -> None:
    rng = np.random.default_rng(4)
    usual = np.ones(CATEGORIES) / CATEGORIES
    mixed = np.where(np.arange(CATEGORIES) % 2, 1.6, 0.4) / CATEGORIES
    test = detector(rng, BETS["adaptive"], usual, samples=5_000, limit=1e8)
    assert test.update(draw(rng, usual, 2_000)) == []
    alarms = test.update(draw(rng, mixed, 2_000))
    assert alarms
    assert alarms[0] < 700


def test_answers_that_all_share_one_category_give_no_alarm() -> None:
    rng = np.random.default_rng(5)
    test = detector(rng, TiltBets, np.ones(1), samples=100, limit=1e8)
    assert test.update(np.zeros(5_000, np.int64)) == []


def test_the_evidence_grows_to_one_at_an_alarm() -> None:
    rng = np.random.default_rng(6)
    usual = np.ones(CATEGORIES) / CATEGORIES
    test = detector(rng, TiltBets, usual, samples=5_000, limit=1e8)
    assert test.evidence == 0
    seen = []
    for _ in range(400):
        if test.update(np.array([CATEGORIES - 1])):
            break
        seen.append(test.evidence)
    assert seen[-1] > 0.9
    assert test.evidence == 0
