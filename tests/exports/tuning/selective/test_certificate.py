"""A certified precision is broken no more often than stated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from exports.tuning.selective.certificate import find_certified, precision_holds
from exports.tuning.selective.rejection import find_reject_below
from exports.tuning.statistics.answers import AnsweredStats, Answers
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
        half = samples // 2
        first = Answers(answers.confidence[:half], answers.correct[:half])
        second = Answers(answers.confidence[half:], answers.correct[half:])
        found = find_certified(first, second, goal, CONFIDENCE)
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
