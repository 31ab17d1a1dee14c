"""Certificates of precision: at least so many of the answers that are given are right.

Selective risk with guaranteed control (Geifman and El-Yaniv 2017), by fixed-sequence testing: a part of the
samples gives the limits and their order, the other tests them. docs/guide/tuning.md explains it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from exports.bundle.certificate import PrecisionCertificate
from exports.bundle.policy import Policy
from exports.tuning.goal import TuningData
from exports.tuning.selective.rejection import steps_of_coverage, strongest
from exports.tuning.statistics.answers import AnsweredStats, Answers
from exports.tuning.statistics.binomial import probability_of_at_most, proportion_bound


def find_certified(
    selection: Answers, certification: Answers, min_precision: float, confidence: float
) -> tuple[float, AnsweredStats] | None:
    """The limit of largest coverage that is certified, and what is answered there; None if none is."""
    found = find_certified_for_all([selection], [certification], min_precision, confidence)
    return None if found is None else found[0]


def find_certified_for_all(
    selection: Sequence[Answers],
    certification: Sequence[Answers],
    min_precision: float,
    confidence: float,
) -> list[tuple[float, AnsweredStats]] | None:
    """For each of several policies the limit of the largest coverage at which the precision of all of them is
    certified, and what is answered there; None if there is none.

    The first coverage tested is the one for which `selection` has the strongest evidence; larger ones follow,
    until the test of one policy fails. Each is tested at the whole level 1 - `confidence`: the order is fixed
    without `certification`, so no correction for the number of tests is due (Learn then Test, Angelopoulos
    et al. 2021). The probability that any limit before the end is worse than stated is at most 1 -
    `confidence`, so that `certification` may also decide which of the policies is used. Geifman and El-Yaniv
    divide the level by the number of steps of a binary search.
    """
    tried = [steps_of_coverage(answers) for answers in selection]
    weakest = [min(stats, key=_precision) for stats in _at(selection, tried)]
    start = strongest(weakest, min_precision)
    if start is None:
        return None
    found = None
    remaining = [steps[start:] for steps in tried]
    for limits, stats in zip(np.transpose(remaining), _at(certification, remaining), strict=True):
        if not all(precision_holds(each, min_precision, confidence) for each in stats):
            break
        found = list(zip(limits.tolist(), stats, strict=True))
    return found


def _at(
    answers: Sequence[Answers], limits: Sequence[NDArray[np.float64]]
) -> Iterator[tuple[AnsweredStats, ...]]:
    """What each policy answers at its first limit, then at its second, and so on."""
    policies = [each.above(steps) for each, steps in zip(answers, limits, strict=True)]
    return zip(*policies, strict=True)


def _precision(stats: AnsweredStats) -> float:
    return stats.precision or 0.0


def precision_holds(stats: AnsweredStats, min_precision: float, confidence: float) -> bool:
    """Whether `stats`, of whole counts, prove a precision of at least `min_precision`.

    Given how many samples are answered, the wrong answers are binomial: the test of Clopper and Pearson.
    """
    answered, errors = int(stats.answered), int(stats.answered - stats.correct)
    if not answered:
        return False
    return probability_of_at_most(errors, answered, 1 - min_precision) <= 1 - confidence


def make_precision_certificate(
    stats: AnsweredStats,
    reject_below: float,
    min_precision: float,
    confidence: float,
    chosen_on: int,
    split: str,
) -> PrecisionCertificate:
    """The certificate of a precision that holds; `split` is the SHA-256 of the samples certified on."""
    answered, errors = int(stats.answered), int(stats.answered - stats.correct)
    bound = 1 - proportion_bound(errors, answered, confidence)
    return PrecisionCertificate(
        min_precision=min_precision,
        reject_below=reject_below,
        confidence=confidence,
        bound=max(math.floor(1e6 * bound) / 1e6, min_precision),
        answered=answered,
        chosen_on=chosen_on,
        samples=stats.samples,
        split_sha256=split,
    )


def verify_precision(policy: Policy, data: TuningData) -> bool | None:
    """Whether the precision certificate of `policy` follows from `data`; None if it is of other samples, or
    if there is none."""
    certificate = policy.precision_certificate
    if certificate is None or certificate.split_sha256 != data.split_sha256:
        return None
    if data.target == "agreement":
        return False
    stats = data.certification.answers(policy).above(np.array([certificate.reject_below]))[0]
    promise = certificate.min_precision, certificate.confidence
    return precision_holds(stats, *promise) and certificate == make_precision_certificate(
        stats, certificate.reject_below, *promise, data.selection.samples, data.split_sha256
    )
