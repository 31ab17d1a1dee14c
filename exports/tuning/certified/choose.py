"""Policies with a certificate of their drop, chosen on some of the samples and tested on the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

from exports.bundle.errors import TuningError
from exports.tuning.certificate import (
    holds,
    make_certificate,
    method_of,
    samples_for,
    samples_needed,
)
from exports.tuning.goal import Choice, Goal, TuningData
from exports.tuning.path import CHEAPER_THAN_FULL_DEPTH, Candidate, cautious_path
from exports.tuning.search import FrontierPoint


def tested_path(data: TuningData, costs: Sequence[float]) -> list[FrontierPoint]:
    """The policies that are tested, cheapest first: the path of the samples chosen on, without those that
    cost as much as full depth."""
    return [
        point
        for point in cautious_path(data.selection, costs)
        if point.cost < CHEAPER_THAN_FULL_DEPTH * costs[-1]
    ]


def choose_certified(
    data: TuningData, points: Sequence[FrontierPoint], goal: Goal, confidence: float
) -> Choice:
    """Fixed-sequence testing of `points`, cheapest first: from the safest policy to the cheapest, until one
    fails. Raises TuningError if the first does.

    Learn then Test (Angelopoulos et al. 2021): since the order is fixed without the samples that certify,
    the probability that any accepted policy is worse than permitted is at most 1 - confidence, with no
    correction for the number of tests.
    """
    path = tuple(
        Candidate(point.policy, data.certification.evaluate(point.policy)) for point in points
    )
    method = method_of(data.target)
    accepted: Candidate | None = None
    for candidate in reversed(path):
        if not holds(candidate.stats, goal.value, confidence, method):
            break
        accepted = candidate
    if accepted is None:
        raise TuningError(_why_not_certified(path, data, goal.value, confidence))
    certificate = make_certificate(
        accepted.stats, goal.value, confidence, method, data.selection.samples, data.split_sha256
    )
    policy = accepted.policy.model_copy(update={"certificate": certificate})
    return Choice(goal, policy, accepted.stats, path)


def _why_not_certified(
    path: Sequence[Candidate], data: TuningData, permitted: float, confidence: float
) -> str:
    """Why no policy was certified, and how many samples would be enough."""
    if not path:
        return "The network has no exit before the last, so every policy is the ensemble."
    reason = (
        f"No policy cheaper than the ensemble can be promised to lose at most {100 * permitted:g} "
        f"points with {100 * confidence:g} % confidence from {data.whole.samples:,} samples"
    )
    # The safest policy, judged by the samples that refused it, else by all.
    for stats in (path[-1].stats, data.whole.evaluate(path[-1].policy)):
        # More gains than losses are luck, on which no forecast should rest.
        lost, gained = stats.losses / stats.samples, min(stats.gains, stats.losses) / stats.samples
        needed = samples_needed(lost, gained, permitted, confidence)
        if needed is not None:
            return f"{reason}; about {round_up(samples_for(needed)):,} would do."
    least = samples_needed(0, 0, permitted, confidence)
    if least is not None and least > data.certification.samples:
        return f"{reason}; it takes at least about {round_up(samples_for(least)):,}."
    return f"{reason}: the safest one loses {100 * stats.drop:.2f} points on them."


def round_up(count: int) -> int:
    """`count` rounded up to two significant digits."""
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return math.ceil(count / unit) * unit
