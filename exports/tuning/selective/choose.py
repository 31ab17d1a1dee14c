"""A policy that withholds its labels where too few answers would be right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from exports.bundle.errors import TuningError
from exports.tuning.goal import Choice, Goal, PrecisionGoal, TuningData, Unit
from exports.tuning.path import Candidate, left_out_answers
from exports.tuning.select import choose, choose_default, round_up
from exports.tuning.selective.certificate import (
    find_certified,
    make_precision_certificate,
    precision_holds,
)
from exports.tuning.selective.rejection import (
    MIN_PERMITTED_ERRORS,
    find_reject_below,
    largest_supported,
    limits,
    strongest,
)
from exports.tuning.statistics.answers import AnsweredStats, Answers

MAX_SAMPLES = 10**6


def choose_precise(
    data: TuningData,
    costs: Sequence[float],
    goal: Goal | None,
    precision: PrecisionGoal,
    unit: Unit = "macs",
    command: str = "offramp tune BUNDLE",
) -> Choice:
    """The policy for `goal`, or the default, with the `reject_below` of largest coverage for `precision`.

    Thresholds are chosen first, as if every answer had a label: `goal` is about the likeliest class of every
    sample. With a confidence thresholds and `reject_below` are chosen on the selection half, and the
    precision is certified on the other. Raises TuningError, which says what is possible, if the samples
    do not support one of the goals.
    """
    if data.target == "agreement":
        raise TuningError("--min-precision needs labels: which answers are right is not known.")
    if precision.confidence is not None:
        return _choose_certified(data, costs, goal, precision, precision.confidence, unit, command)
    precise = f"{command} --min-precision {precision.min_precision:g}"
    if goal is None:
        choice = choose_default(data, costs, unit, precise)
    else:
        choice = choose(data, costs, goal, precise)
    answers = _out_of_sample(data, choice)
    found = find_reject_below(answers, precision.min_precision)
    if found is None:
        again = command if goal is None else f"{command}{goal.options}"
        raise TuningError(_why_not_supported(answers, precision.min_precision, again))
    policy = choice.policy.model_copy(update={"reject_below": found[0]})
    return replace(choice, policy=policy, answered=found[1])


def _out_of_sample(data: TuningData, choice: Choice) -> Answers:
    """The answers of the chosen policy to samples that its thresholds were not chosen on."""
    if choice.policy.certificate is not None:
        return data.certification.answers(choice.policy)
    for candidate in choice.alternatives:
        if candidate.policy == choice.policy:
            return left_out_answers(data.whole, candidate)
    # Full depth has no thresholds to choose.
    return data.whole.answers(choice.policy)


def _choose_certified(
    data: TuningData,
    costs: Sequence[float],
    goal: Goal | None,
    precision: PrecisionGoal,
    confidence: float,
    unit: Unit,
    command: str,
) -> Choice:
    precise = f"{command} --min-precision {precision.min_precision:g} --confidence {confidence:g}"
    if goal is None:
        choice = choose_default(data, costs, unit, precise, confidence, data.first_half)
    elif goal.confidence is not None:
        choice = choose(data, costs, goal, precise)
    else:
        choice = choose(data.first_half, costs, goal, precise)
    selection = data.selection.answers(choice.policy)
    certification = data.certification.answers(choice.policy)
    found = find_certified(selection, certification, precision.min_precision, confidence)
    if found is None:
        reason = _why_not_certified(selection, data.whole.samples, precision, confidence)
        supported = _without_promise(data, costs, goal, precision, unit, command)
        raise TuningError(f"{reason}; {supported}")
    reject_below, answered = found
    certificate = make_precision_certificate(
        answered,
        reject_below,
        precision.min_precision,
        confidence,
        data.selection.samples,
        data.split_sha256,
    )
    kept = {"reject_below": reject_below, "precision_certificate": certificate}
    # All results are of the certification half, as where the drop is certified.
    return replace(
        choice,
        policy=choice.policy.model_copy(update=kept),
        stats=data.certification.evaluate(choice.policy),
        alternatives=tuple(
            Candidate(other.policy, data.certification.evaluate(other.policy))
            for other in choice.alternatives
        ),
        answered=answered,
    )


def _why_not_supported(answers: Answers, min_precision: float, command: str) -> str:
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


def _why_not_certified(
    selection: Answers, samples: int, precision: PrecisionGoal, confidence: float
) -> str:
    """Why no limit was certified, and how many samples would be enough. The half that certifies is not looked
    at: a goal that was set after that would be certified more often than stated."""
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
    return f"{reason}; about {round_up(math.ceil(2 * needed / surest.coverage)):,} would do"


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


def _without_promise(
    data: TuningData,
    costs: Sequence[float],
    goal: Goal | None,
    precision: PrecisionGoal,
    unit: Unit,
    command: str,
) -> str:
    """What to type for the same precision, or the nearest that is supported, without a promise."""
    plain = None if goal is None else replace(goal, confidence=None)
    bare = replace(precision, confidence=None)
    try:
        choose_precise(data, costs, plain, bare, unit, command)
    except TuningError as error:
        return f"without a promise {error}"
    option = f"--min-precision {precision.min_precision:g}"
    options = "" if goal is None else goal.options
    return f"without a promise: `{command}{options} {option}`."
