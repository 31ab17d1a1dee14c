"""Why samples do not support a precision, and what they support."""

from __future__ import annotations

import math

from exports.tuning.certificate import samples_for
from exports.tuning.certified.choose import round_up
from exports.tuning.goal import PrecisionGoal
from exports.tuning.select import MIN_PERMITTED_ERRORS
from exports.tuning.selective.certificate import precision_holds
from exports.tuning.selective.rejection import largest_supported, limits, strongest
from exports.tuning.statistics.answers import AnsweredStats, Answers

MAX_SAMPLES = 10**6


def why_not_supported(answers: Answers, min_precision: float, command: str) -> str:
    reason = (
        f"{answers.samples:,} samples support no reject_below with which {100 * min_precision:g} % of the "
        "answers are right"
    )
    needed = math.ceil(MIN_PERMITTED_ERRORS / (1 - min_precision) - 1e-9)
    if needed > answers.samples:
        reason += f", which takes at least {round_up(needed):,}"
    best = largest_supported(answers, min_precision)
    if best is None:
        return f"{reason}, nor any lower precision."
    return f"{reason}; these support `{command} --min-precision {best:g}`."


def why_not_certified(
    selection: Answers, samples: int, precision: PrecisionGoal, confidence: float
) -> str:
    """Why no limit was certified, and how many samples would be enough. The samples that certify are not
    looked at: a goal that was set after that would be certified more often than stated."""
    goal = precision.min_precision
    reason = (
        f"No reject_below can be promised with {100 * confidence:g} % confidence to make {100 * goal:g} % of "
        f"the answers right from {samples:,} samples"
    )
    found = selection.above(limits(selection))
    start = strongest(found, goal)
    surest = found[0 if start is None else start]
    needed = _answers_needed(surest, goal, confidence)
    if needed is None:
        return f"{reason}: of the surest answers {100 * (surest.precision or 0):.1f} % are right"
    return (
        f"{reason}; about {round_up(samples_for(math.ceil(needed / surest.coverage))):,} would do"
    )


def _answers_needed(stats: AnsweredStats, min_precision: float, confidence: float) -> int | None:
    """About how many answers would certify this precision; None if it is not above the goal."""
    wrong = 1 - (stats.precision or 0)
    answered = 1
    while answered <= MAX_SAMPLES:
        right = answered - math.ceil(wrong * answered - 1e-9)
        if precision_holds(AnsweredStats(answered, answered, right), min_precision, confidence):
            return answered
        answered = math.ceil(1.05 * answered)
    return None
