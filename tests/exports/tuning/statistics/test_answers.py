"""Counts of what is answered at a limit of confidence."""

from __future__ import annotations

import numpy as np
import pytest

from exports.tuning.statistics.answers import AnsweredStats, Answers
from exports.tuning.statistics.binomial import probability_of_at_most, proportion_interval

ANSWERS = Answers(np.array([0.5, 0.9, 0.7, 0.7], np.float32), np.array([True, True, False, True]))


def test_a_sample_whose_confidence_is_the_limit_is_answered() -> None:
    found = ANSWERS.above(np.array([1.0, 0.9, 0.7, 0.6, 0.0]))
    assert [(stats.answered, stats.correct) for stats in found] == [
        (0, 0),
        (1, 1),
        (3, 2),
        (3, 2),
        (4, 3),
    ]
    assert [stats.coverage for stats in found] == [0, 0.25, 0.75, 0.75, 1]
    assert found[0].precision is None
    assert found[2].precision == pytest.approx(2 / 3)


def test_limits_are_compared_in_float32_as_answers_are() -> None:
    third = Answers(np.array([0.333333], np.float32), np.array([True]))
    assert third.above(np.array([0.333333]))[0].answered == 1
    assert third.above(np.array([0.333334]))[0].answered == 0


def test_repetitions_are_averaged() -> None:
    twice = Answers(np.tile(ANSWERS.confidence, 2), np.tile(ANSWERS.correct, 2), 2)
    assert twice.samples == 4
    assert twice.above(np.array([0.7, 0.0])) == ANSWERS.above(np.array([0.7, 0.0]))


def test_intervals_contain_the_share_and_shrink() -> None:
    few, many = AnsweredStats(40, 20, 19), AnsweredStats(4000, 2000, 1900)
    for stats in (few, many):
        low, high = stats.precision_interval(0.95)
        assert low < 0.95 < high
    assert few.precision_interval(0.95)[0] < many.precision_interval(0.95)[0]
    assert few.coverage_interval(0.95) == pytest.approx((0.352, 0.648), abs=1e-3)
    assert AnsweredStats(40, 0, 0).precision_interval(0.95) == (0, 1)


def test_the_interval_of_a_proportion_is_wilsons() -> None:
    # Wilson's interval of 81 of 263 is given in Newcombe 1998, Statistics in Medicine 17, 857.
    assert proportion_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert proportion_interval(0, 20, 0.95) == pytest.approx((0, 0.1611), abs=1e-4)


def test_a_binomial_tail() -> None:
    assert probability_of_at_most(1, 3, 0.5) == pytest.approx(0.5)
    assert probability_of_at_most(0, 59, 0.05) == pytest.approx(0.95**59)
