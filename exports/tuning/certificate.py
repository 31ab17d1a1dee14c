"""Certificates: a policy's accuracy drop holds with a stated probability.

A sample's loss against the ensemble is +1 where the ensemble is right and the policy wrong (a loss), -1
the other way round (a gain), else 0; the drop is its mean. Nothing is assumed but that samples are
independent draws of one distribution. docs/guide/tuning.md explains and names the sources.
"""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from exports.bundle.certificate import Certificate, CertificateMethod, Target
from exports.tuning.statistics import score_test, trinomial_test
from exports.tuning.statistics.binomial import proportion_bound
from exports.tuning.statistics.policy_stats import PolicyStats

Index = NDArray[np.int64]

MAX_SAMPLES = 10**9
# Exact tails are slow for more samples, and the normal approximation then gives the same number.
MAX_EXACT_SAMPLES = 20_000
# From here on a third of the samples is chosen on, before it half of them. The others are then 602, the
# fewest that can certify the default of half a point. Of fewer samples, temperatures need the half.
MIN_SAMPLES_FOR_THIRD = 903


def selection_size(count: int) -> int:
    """How many of `count` samples are chosen on; the others certify."""
    return count // 3 if count >= MIN_SAMPLES_FOR_THIRD else count // 2


def samples_for(certified_on: int) -> int:
    """The fewest samples of which `certified_on` certify."""
    count = 2 * certified_on - 1
    if count < MIN_SAMPLES_FOR_THIRD:
        return count
    return max(MIN_SAMPLES_FOR_THIRD, (3 * certified_on - 1) // 2)


def divide(count: int, chosen_on: int | None = None) -> tuple[Index, Index]:
    """The samples to choose on and those to certify on, int64, together 0..count-1, each ascending.

    `chosen_on` is how many are chosen on, `selection_size` unless a bundle says otherwise. The samples depend
    on these numbers alone, so that nobody can try several divisions and keep the luckiest.
    """
    first = selection_size(count) if chosen_on is None else chosen_on
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    return np.sort(order[:first]), np.sort(order[first:])


def split_sha256(source_sha256: str, certified_on: Index) -> str:
    """The hash that names the samples certified on: SHA-256 of the source file's hash (ASCII, 64 hex
    digits) followed by their positions in it as little-endian int64."""
    return hashlib.sha256(source_sha256.encode() + certified_on.astype("<i8").tobytes()).hexdigest()


def method_of(target: Target) -> CertificateMethod:
    """The method of new certificates."""
    return "exact-score" if target == "labels" else "clopper-pearson"


def holds(
    stats: PolicyStats, permitted: float, confidence: float, method: CertificateMethod
) -> bool:
    """Whether `stats`, of whole counts, prove a drop of less than `permitted` with `confidence`."""
    losses, gains, samples = int(stats.losses), int(stats.gains), stats.samples
    if method == "clopper-pearson":
        return proportion_bound(losses, samples, confidence) <= permitted
    if method == "exact-trinomial":
        return trinomial_test.drop_holds(losses, gains, samples, permitted, confidence)
    return score_test.drop_holds(losses, gains, samples, permitted, confidence)


def make_certificate(
    stats: PolicyStats,
    permitted: float,
    confidence: float,
    method: CertificateMethod,
    chosen_on: int,
    split: str,
) -> Certificate:
    """The certificate of a policy that `holds`; `split` is the SHA-256 of the samples certified on."""
    losses, gains, samples = int(stats.losses), int(stats.gains), stats.samples
    if method == "clopper-pearson":
        bound = proportion_bound(losses, samples, confidence)
    elif method == "exact-trinomial":
        bound = trinomial_test.drop_bound(losses, gains, samples, confidence)
    else:
        bound = score_test.drop_bound(losses, gains, samples, confidence)
    permitted_points = round(100 * permitted, 6)
    return Certificate(
        method=method,
        permitted_drop=permitted_points,
        confidence=confidence,
        bound=min(math.ceil(1e6 * bound) / 1e4, permitted_points),
        chosen_on=chosen_on,
        samples=samples,
        split_sha256=split,
        target="agreement" if method == "clopper-pearson" else "labels",
    )


def samples_needed(losses: float, gains: float, permitted: float, confidence: float) -> int | None:
    """About how many samples would certify a policy with these rates of losses and gains.

    None if the drop itself, losses - gains, is not below `permitted`: no number would be enough.
    """
    if losses - gains >= permitted:
        return None
    low, high = 1, 2
    while not _enough(losses, gains, high, permitted, confidence):
        low, high = high, 2 * high
        if high > MAX_SAMPLES:
            return None
    while high > low + max(1, low // 100):
        middle = (low + high) // 2
        if _enough(losses, gains, middle, permitted, confidence):
            high = middle
        else:
            low = middle
    return high


def _enough(losses: float, gains: float, samples: int, permitted: float, confidence: float) -> bool:
    if samples <= MAX_EXACT_SAMPLES:
        lost, gained = math.ceil(losses * samples), int(gains * samples)
        return score_test.drop_holds(lost, gained, samples, permitted, confidence)
    deviation = math.sqrt((losses + gains) / samples)
    return losses - gains + NormalDist().inv_cdf(confidence) * deviation <= permitted
