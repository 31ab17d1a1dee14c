"""Certificates of precision: at least so many of the answers that are given are right.

Selective risk with guaranteed control (Geifman and El-Yaniv 2017), by fixed-sequence testing: one half of the
samples gives the limits and their order, the other tests them. docs/guide/tuning.md explains it.
"""

from __future__ import annotations

import math

import numpy as np

from exports.bundle.certificate import PrecisionCertificate
from exports.bundle.policy import Policy
from exports.tuning.goal import TuningData
from exports.tuning.selective.rejection import limits, strongest
from exports.tuning.statistics.answers import AnsweredStats, Answers
from exports.tuning.statistics.binomial import probability_of_at_most, proportion_bound


def find_certified(
    selection: Answers, certification: Answers, min_precision: float, confidence: float
) -> tuple[float, AnsweredStats] | None:
    """The limit of largest coverage that is certified, and what is answered there; None if none is.

    The first limit tested is the one for which `selection` has the strongest evidence; lower ones follow,
    until one fails. Each is tested at the whole level 1 - `confidence`: the order is fixed without
    `certification`, so no correction for the number of limits is due (Learn then Test, Angelopoulos et
    al. 2021). Geifman and El-Yaniv divide the level by the number of steps of a binary search.
    """
    tried = limits(selection)
    start = strongest(selection.above(tried), min_precision)
    if start is None:
        return None
    found = None
    remaining = tried[start:]
    for limit, stats in zip(remaining, certification.above(remaining), strict=True):
        if not precision_holds(stats, min_precision, confidence):
            break
        found = float(limit), stats
    return found


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


def reproduces_reject_below(policy: Policy, data: TuningData) -> bool:
    """Whether the goal in the precision certificate of `policy` leads to its `reject_below` on `data`, given
    the thresholds. False if there is no such certificate."""
    certificate = policy.precision_certificate
    if certificate is None:
        return False
    found = find_certified(
        data.selection.answers(policy),
        data.certification.answers(policy),
        certificate.min_precision,
        certificate.confidence,
    )
    return found is not None and found[0] == certificate.reject_below
