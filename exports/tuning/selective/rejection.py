"""The confidence below which answers are withheld, so that enough of the others are right.

Selective classification (El-Yaniv and Wiener 2010): coverage is the share of samples that are answered,
precision the share of the answers that are right. Limits are tried from few answers to many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exports.tuning.select import MIN_PERMITTED_ERRORS
from exports.tuning.statistics.answers import AnsweredStats, Answers
from exports.tuning.statistics.binomial import probability_of_at_most

MAX_LIMITS = 200
# The chance of as few errors, if exactly as many were made as are permitted, at which a search begins.
MAX_CHANCE = 0.2
PRECISION_STEP = 0.005  # of the precisions that are suggested


def limits(answers: Answers, most: int = MAX_LIMITS) -> NDArray[np.float64]:
    """Limits of confidence for at most `most` even steps of coverage on `answers`, descending, with six
    decimals, which survive float32; the last is 0, at which everything is answered."""
    return np.unique(steps_of_coverage(answers, most))[::-1]


def steps_of_coverage(answers: Answers, most: int = MAX_LIMITS) -> NDArray[np.float64]:
    """The same with repetitions: as many, at the same coverages, for all answers to as many samples."""
    steps = min(most, answers.samples)
    quantiles = np.quantile(answers.confidence, np.linspace(1, 0, steps + 1)[1:]).round(6)
    return np.append(np.clip(quantiles, 0, 1), 0.0)


def find_reject_below(answers: Answers, min_precision: float) -> tuple[float, AnsweredStats] | None:
    """The limit of largest coverage whose precision is at least `min_precision`, and what is answered there;
    None if `answers` do not support that.

    The search begins where the evidence is strongest, and ends at the first limit that fails. `answers`
    are of samples on which the policy was not chosen. The limit is, so one right answer is counted as wrong:
    the limit that is picked looks better than it is by about one sample.
    """
    tried = limits(answers)
    stats = [_one_wrong(found) for found in answers.above(tried)]
    start = strongest(stats, min_precision)
    if start is None or _chance(stats[start], min_precision) > MAX_CHANCE:
        return None
    found = None
    for limit, answered in zip(tried[start:], stats[start:], strict=True):
        if answered.correct < min_precision * answered.answered - 1e-9:
            break
        found = float(limit), answered
    return found


def largest_supported(answers: Answers, below: float) -> float | None:
    """The largest precision under `below` that `answers` support, a multiple of PRECISION_STEP."""
    for step in range(math.ceil(below / PRECISION_STEP - 1e-9) - 1, 0, -1):
        precision = round(step * PRECISION_STEP, 6)
        if find_reject_below(answers, precision):
            return precision
    return None


def strongest(stats: Sequence[AnsweredStats], min_precision: float) -> int | None:
    """The place with the strongest evidence of a precision above `min_precision`: by how many standard
    deviations the errors are fewer than permitted. None if nowhere MIN_PERMITTED_ERRORS are permitted."""
    wrong = 1 - min_precision

    def evidence(place: int) -> float:
        answered, correct = stats[place].answered, stats[place].correct
        spread = math.sqrt(answered * wrong * min_precision)
        return (wrong * answered - (answered - correct)) / spread

    enough = [
        place
        for place, found in enumerate(stats)
        if wrong * found.answered >= MIN_PERMITTED_ERRORS - 1e-9
    ]
    return max(enough, key=evidence, default=None)


def _one_wrong(stats: AnsweredStats) -> AnsweredStats:
    return AnsweredStats(stats.samples, stats.answered, max(stats.correct - 1, 0.0))


def _chance(stats: AnsweredStats, min_precision: float) -> float:
    """The probability of as few errors, if answers are right with probability `min_precision`."""
    answered = math.floor(stats.answered)
    errors = min(math.ceil(stats.answered - stats.correct - 1e-9), answered)
    return probability_of_at_most(errors, answered, 1 - min_precision)
