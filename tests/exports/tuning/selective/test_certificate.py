"""A certified precision is broken no more often than stated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from exports.tuning.selective.certificate import (
    find_certified,
    find_certified_for_all,
    precision_holds,
)
from exports.tuning.selective.rejection import find_reject_below
from exports.tuning.statistics.answers import AnsweredStats, Answers
from exports.tuning.statistics.score_test import drop_holds
from tests.exports.tuning.selective.test_rejection import drawn

CONFIDENCE = 0.9


def true_precision(limit: float) -> float:
    """The precision of `drawn` above a limit: its mean confidence there."""
    return (max(limit, 0.5) + 1) / 2


@pytest.mark.parametrize(
    ("answered", "errors"), [(59, 0), (58, 0), (93, 1), (92, 1), (1000, 38), (1000, 39)]
)
def test_the_test_is_the_exact_binomial_one(answered: int, errors: int) -> None:
    stats = AnsweredStats(2000, answered, answered - errors)
    p = binomtest(errors, answered, 0.05, "less").pvalue
    assert precision_holds(stats, 0.95, 0.95) == (p <= 0.05)


def test_no_answers_prove_nothing() -> None:
    assert not precision_holds(AnsweredStats(10, 0, 0), 0.5, 0.9)


def test_the_test_keeps_its_size_for_every_precision() -> None:
    """Enumeration of all outcomes: 100 answers, of which at most the permitted share is right."""
    errors = np.arange(101)
    for goal in (0.8, 0.9, 0.95, 0.99):
        accepted = [precision_holds(AnsweredStats(100, 100, 100 - e), goal, 0.95) for e in errors]
        assert binom.pmf(errors, 100, 1 - goal)[accepted].sum() <= 0.05


@pytest.mark.parametrize(("samples", "goal"), [(120, 0.8), (600, 0.85), (2500, 0.9)])
def test_certified_precisions_fail_no_more_often_than_stated(samples: int, goal: float) -> None:
    """Any of up to 200 limits may be certified, each tested at the whole level."""
    trials, certified, failures, naive = 500, 0, 0, 0
    for seed in range(trials):
        answers = drawn(samples, seed)
        found = find_certified(*split(answers), goal, CONFIDENCE)
        if found is not None:
            certified += 1
            failures += true_precision(found[0]) < goal
        chosen = find_reject_below(answers, goal)
        naive += chosen is not None and true_precision(chosen[0]) < goal
    most = binom.ppf(0.999, trials, 1 - CONFIDENCE)
    assert failures <= most
    assert certified > 0.3 * trials
    # Without a confidence the goal is met on average, and missed in many draws.
    assert naive > most


@pytest.mark.parametrize(("goal", "drop"), [(0.9, 0.01), (0.8, 0.01)])
def test_a_precision_holds_for_the_policy_that_the_same_half_picks_by_its_drop(
    goal: float, drop: float
) -> None:
    """Exit 1 and full depth are right equally often, as often as the goal asks, and independently of each
    other. More and more samples leave at exit 1 while the drop seems permitted: a policy that is picked in
    this way looks better than it is."""
    trials, samples, confidence = 300, 1500, 0.95
    shares = (0.02, 0.1, 0.3, 0.6, 1.0)
    random = np.random.default_rng(0)
    certified = naive = 0
    for _ in range(trials):
        early, full, place = random.random((3, 2 * samples))
        correct = np.where([place < share for share in shares], early < goal, full < goal)
        losses = ((full < goal) & ~correct)[:, samples:].sum(axis=1).tolist()
        gains = (correct & (full >= goal))[:, samples:].sum(axis=1).tolist()
        picked = -1
        for lost, gained in zip(losses, gains, strict=True):
            if not drop_holds(lost, gained, samples, drop, confidence):
                break
            picked += 1
        answers = [Answers(np.ones(2 * samples, np.float32), row) for row in correct]
        first, second = zip(*(split(each) for each in answers), strict=True)
        certified += find_certified_for_all(first, second, goal, confidence) is not None
        alone = first[picked], second[picked]
        naive += find_certified(*alone, goal, confidence) is not None
    most = binom.ppf(0.999, trials, 1 - confidence)
    assert certified <= most
    assert naive > most


def split(answers: Answers) -> tuple[Answers, Answers]:
    """The first and the second half of the samples."""
    half = answers.samples // 2
    return (
        Answers(answers.confidence[:half], answers.correct[:half]),
        Answers(answers.confidence[half:], answers.correct[half:]),
    )
