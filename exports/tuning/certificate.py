"""Statements about a policy's accuracy drop that hold with a stated probability.

A sample's loss against the ensemble is +1 where the ensemble is right and the policy wrong (a loss), -1
the other way round (a gain), else 0; the drop is its mean. Nothing is assumed but that samples are
independent draws of one distribution. docs/guide/tuning.md explains and names the sources.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]

# The share of the error probability spent on the nuisance parameter; Berger and Boos use 0.001.
NUISANCE_SHARE = 0.02
BISECTIONS = 50
MAX_SAMPLES = 10**9


def halves(count: int) -> tuple[Index, Index]:
    """The samples to choose on and those to certify on, int64, each half of 0..count-1, ascending.

    The split depends on `count` alone, so that nobody can try several and keep the luckiest.
    """
    order = np.random.Generator(np.random.PCG64(0)).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def split_sha256(source_sha256: str, certified_on: Index) -> str:
    """The hash that names the samples certified on: SHA-256 of the source file's hash (ASCII, 64 hex
    digits) followed by their positions in it as little-endian int64."""
    return hashlib.sha256(source_sha256.encode() + certified_on.astype("<i8").tobytes()).hexdigest()


def drop_bound(losses: int, gains: int, samples: int, confidence: float) -> float:
    """Upper confidence limit in [0, 1] of the drop, from `losses` and `gains` among `samples`.

    Exact for the difference of two paired proportions: the tail probability of losses - gains, with
    the disagreement rate (a nuisance parameter) at its own upper limit (Berger and Boos 1994).
    """
    disagreement = _disagreement(losses + gains, samples, confidence)
    if disagreement > 0.5:
        return 1.0  # `_tail` is not proven here, and such a policy is of no use
    low = max(_least_drop(losses - gains, samples), 0.0)
    high = disagreement
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _rejected(losses - gains, samples, middle, disagreement, confidence):
            high = middle
        else:
            low = middle
    return high


def drop_holds(losses: int, gains: int, samples: int, permitted: float, confidence: float) -> bool:
    """Whether `drop_bound` is at most `permitted` (a share, at least 0), at the cost of one tail."""
    disagreement = _disagreement(losses + gains, samples, confidence)
    if disagreement > 0.5:
        return permitted >= 1
    return disagreement <= permitted or _rejected(
        losses - gains, samples, permitted, disagreement, confidence
    )


@lru_cache(maxsize=4096)
def proportion_bound(count: int, samples: int, confidence: float) -> float:
    """Upper confidence limit of a proportion observed `count` times among `samples`.

    Clopper and Pearson 1934: the p at which P(Bin(samples, p) <= count) = 1 - confidence.
    """
    if count >= samples:
        return 1.0
    low, high = count / samples, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _binomial(samples, middle)[: count + 1].sum() <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


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
    # Exact tails are slow for more samples, and the normal approximation then gives the same number.
    if samples <= 20_000:
        lost, gained = int(np.ceil(losses * samples)), int(gains * samples)
        return drop_holds(lost, gained, samples, permitted, confidence)
    deviation = float(np.sqrt((losses + gains) / samples))
    return losses - gains + _normal_quantile(confidence) * deviation <= permitted


def _normal_quantile(confidence: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(confidence)


def _disagreement(count: int, samples: int, confidence: float) -> float:
    return proportion_bound(count, samples, 1 - NUISANCE_SHARE * (1 - confidence))


def _rejected(
    difference: int, samples: int, drop: float, disagreement: float, confidence: float
) -> bool:
    """Whether the test at level 1 - `confidence` rejects a true drop of `drop` or more.

    It does if losses - gains would then be `difference` or less too rarely.
    """
    if drop < _least_drop(difference, samples):
        return False
    return _tail(difference, samples, drop, disagreement) <= (1 - NUISANCE_SHARE) * (1 - confidence)


def _least_drop(difference: int, samples: int) -> float:
    """The smallest drop for which `_tail` is proven to grow with the disagreement rate."""
    return (difference + 2) / max(samples - 1, 1)


@lru_cache(maxsize=65536)
def _tail(difference: int, samples: int, drop: float, disagreement: float) -> float:
    """P(losses - gains <= difference) where losses have the rate p = (disagreement + drop) / 2 and
    gains the rate q = (disagreement - drop) / 2.

    While disagreement <= 1/2, q + (1 - p - q) z + p z^2 has real roots, so losses - gains is the
    difference of two independent binomials. By Darroch 1964 its mode is then within 1 of its mean, so
    below the mean the tail grows with the disagreement, and the upper limit of the disagreement is the
    worst case.
    """
    p, q = (disagreement + drop) / 2, max((disagreement - drop) / 2, 0.0)
    root = np.sqrt(max((1 - p - q) ** 2 - 4 * p * q, 0.0))
    # The factors (a z + 1 - a)(b + (1 - b) z), multiplied out, have the coefficients above.
    a = (1 + p - q - root) / 2
    b = (1 - p + q - root) / 2
    up, down = _binomial(samples, a), _binomial(samples, b)
    at_least = np.concatenate([down[::-1].cumsum()[::-1], [0.0]])  # P(down >= j)
    needed = np.clip(np.arange(samples + 1) - difference, 0, samples + 1)
    return float(min((up * at_least[needed]).sum(), 1.0))


def _binomial(samples: int, p: float) -> NDArray[np.float64]:
    """P(Bin(samples, p) = j) for j = 0..samples."""
    p = min(max(p, 0.0), 1.0)
    if p in (0.0, 1.0):
        certain = np.zeros(samples + 1)
        certain[round(p * samples)] = 1.0
        return certain
    j = np.arange(samples + 1)
    logs = _log_choose(samples) + j * np.log(p) + (samples - j) * np.log1p(-p)
    probabilities: NDArray[np.float64] = np.exp(logs)
    return probabilities


@lru_cache(maxsize=8)
def _log_choose(samples: int) -> NDArray[np.float64]:
    factorials = np.concatenate([[0.0], np.log(np.arange(1, samples + 1)).cumsum()])
    logs: NDArray[np.float64] = factorials[-1] - factorials - factorials[::-1]
    return logs
