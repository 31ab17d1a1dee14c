"""A policy that withholds its labels where too few answers would be right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from exports.bundle.errors import TuningError
from exports.bundle.policy import Policy
from exports.tuning.certified.choose import choose_certified, tested_path
from exports.tuning.goal import Choice, Default, Goal, PrecisionGoal, TuningData, Unit
from exports.tuning.path import Candidate, left_out_answers
from exports.tuning.search import FrontierPoint, PolicyEvaluator
from exports.tuning.select import choose, choose_default, uncertified_default
from exports.tuning.selective.certificate import (
    find_certified,
    find_certified_for_all,
    make_precision_certificate,
)
from exports.tuning.selective.reasons import why_not_certified, why_not_supported
from exports.tuning.selective.rejection import find_reject_below
from exports.tuning.statistics.answers import Answers

MIN_CERTIFIED_SAMPLES = 4
# Standard errors added to a drop on the samples chosen on. With fewer, more policies need a precision,
# and less is answered; with more, some are left out whose drop the other samples would certify.
PERMITTED_CAUTION = 1.0


def choose_precise(
    data: TuningData,
    costs: Sequence[float],
    goal: Goal | None,
    precision: PrecisionGoal,
    unit: Unit = "macs",
    command: str = "offramp tune BUNDLE",
    default: Default | None = None,
) -> Choice:
    """The policy for `goal`, or the `default`, with the `reject_below` of largest coverage for `precision`.

    Thresholds are chosen first, as if every answer had a label: `goal` is about the likeliest class of every
    sample. With a confidence thresholds and `reject_below` are chosen on the selection samples, and the
    precision is certified on the others; the confidence of `default` is then that of `precision`. Raises
    TuningError, which says what is possible, if the samples do not support one of the goals.
    """
    if data.target == "agreement":
        raise TuningError("--min-precision needs labels: which answers are right is not known.")
    default = default or Default()
    if precision.confidence is not None:
        if data.whole.samples < MIN_CERTIFIED_SAMPLES:
            raise TuningError(
                f"A certified precision takes at least {MIN_CERTIFIED_SAMPLES} samples: "
                "two to choose on, and two to check on."
            )
        return _choose_certified(
            data, costs, goal, precision, precision.confidence, unit, command, default
        )
    precise = f"{command} --min-precision {precision.min_precision:g}"
    if goal is None:
        choice = choose_default(data, costs, default, unit, precise)
    else:
        choice = choose(data, costs, goal, precise)
    answers = _out_of_sample(data, choice)
    found = find_reject_below(answers, precision.min_precision)
    if found is None:
        again = command if goal is None else f"{command}{goal.options}"
        raise TuningError(why_not_supported(answers, precision.min_precision, again))
    policy = choice.policy.model_copy(update={"reject_below": found[0]})
    return replace(choice, policy=policy, answered=found[1])


def reproduces_precision(
    policy: Policy, data: TuningData, costs: Sequence[float], default: Default
) -> bool:
    """Whether the goals in the certificates of `policy` lead to it on `data` at these `costs`. Without a
    certificate of the drop the thresholds are taken as they are. False if there is none of the precision.
    """
    promise = policy.precision_certificate
    if promise is None:
        return False
    if policy.certificate is None:
        answers = data.selection.answers(policy), data.certification.answers(policy)
        found = find_certified(*answers, promise.min_precision, promise.confidence)
        if found is not None and found[0] == promise.reject_below:
            return True
        goals: list[Goal | None] = [None]
    else:
        drop, confidence = policy.certificate.permitted_drop / 100, policy.certificate.confidence
        goals = [Goal(value=drop, confidence=confidence), None]
    default = replace(default, confidence=promise.confidence)
    for goal in goals:
        try:
            choice, policies = _choose_thresholds(data, costs, goal, "macs", None, default)
        except TuningError:
            continue
        chosen = _with_precision(data, choice, policies, promise.min_precision, promise.confidence)
        if chosen is not None and chosen.policy == policy:
            return True
    return False


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
    default: Default,
) -> Choice:
    precise = f"{command} --min-precision {precision.min_precision:g} --confidence {confidence:g}"
    certified = replace(default, confidence=confidence)
    try:
        choice, policies = _choose_thresholds(data, costs, goal, unit, precise, certified)
    except TuningError as error:
        if goal is None or goal.confidence is None:
            raise
        supported = _without_promise(data, costs, goal, precision, unit, command, default)
        raise TuningError(f"{str(error).removesuffix('.')}; {supported}") from error
    chosen = _with_precision(data, choice, policies, precision.min_precision, confidence)
    if chosen is None:
        selection = data.selection.answers(choice.policy)
        reason = why_not_certified(selection, data.whole.samples, precision, confidence)
        supported = _without_promise(data, costs, goal, precision, unit, command, default)
        raise TuningError(f"{reason}; {supported}")
    return chosen


def _choose_thresholds(
    data: TuningData,
    costs: Sequence[float],
    goal: Goal | None,
    unit: Unit,
    command: str | None,
    default: Default,
) -> tuple[Choice, list[Policy]]:
    """The choice for `goal` or `default`, and the policies that could have been chosen: the samples chosen on
    have fixed these, but if a drop is certified, the samples that certify decide among them."""
    first = data.without_certification
    if goal is None:
        promised, confidence = default.goal(unit), default.confidence
    elif goal.confidence is None:
        choice = choose(first, costs, goal, command)
        return choice, [choice.policy]
    else:
        promised, confidence = goal, goal.confidence
    path = tested_path(data, costs)
    permitted = _permitted(path, data.selection, promised.value)
    policies = [point.policy for point in permitted]
    # No command certifies the precision, but not this drop.
    otherwise = None if goal is not None else uncertified_default(first, costs, default, unit, None)
    if otherwise is not None:
        policies.append(otherwise.policy)
    try:
        choice = choose_certified(data, permitted, promised, confidence)
    except TuningError as error:
        if otherwise is None:
            raise
        notes = (f"It is not certified: {error}", *otherwise.notes)
        return replace(otherwise, notes=notes), policies
    alternatives = tuple(Candidate(p.policy, data.certification.evaluate(p.policy)) for p in path)
    return replace(choice, alternatives=alternatives), policies


def _permitted(
    path: Sequence[FrontierPoint], evaluator: PolicyEvaluator, drop: float
) -> Sequence[FrontierPoint]:
    """The policies of `path`, cheapest first, from the safest on that probably lose at most `drop`, as far as
    the samples of `evaluator` tell, on which they were chosen; at least the safest."""
    first = len(path) - 1
    while first > 0:
        stats = evaluator.evaluate(path[first - 1].policy)
        error = math.sqrt(stats.losses + stats.gains + 1) / stats.samples
        if stats.drop + PERMITTED_CAUTION * error > drop:
            break
        first -= 1
    return path[max(first, 0) :]


def _with_precision(
    data: TuningData,
    choice: Choice,
    policies: Sequence[Policy],
    min_precision: float,
    confidence: float,
) -> Choice | None:
    """`choice`, which is one of `policies`, with the limit and the certificate of its precision; None if none
    is certified. All results are of the samples that certify, as where the drop is certified."""
    found = find_certified_for_all(
        [data.selection.answers(policy) for policy in policies],
        [data.certification.answers(policy) for policy in policies],
        min_precision,
        confidence,
    )
    if found is None:
        return None
    place = policies.index(choice.policy.model_copy(update={"certificate": None}))
    reject_below, answered = found[place]
    certificate = make_precision_certificate(
        answered,
        reject_below,
        min_precision,
        confidence,
        data.selection.samples,
        data.split_sha256,
    )
    kept = {"reject_below": reject_below, "precision_certificate": certificate}
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


def _without_promise(
    data: TuningData,
    costs: Sequence[float],
    goal: Goal | None,
    precision: PrecisionGoal,
    unit: Unit,
    command: str,
    default: Default,
) -> str:
    """What to type for the same precision, or the nearest that is supported, without a promise."""
    plain = None if goal is None else replace(goal, confidence=None)
    bare = replace(precision, confidence=None)
    try:
        choose_precise(data, costs, plain, bare, unit, command, default)
    except TuningError as error:
        return f"without a promise {error}"
    option = f"--min-precision {precision.min_precision:g}"
    options = "" if goal is None else goal.options
    return f"without a promise: `{command}{options} {option}`."
