"""The binomial distribution and exact limits of its proportion."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

BISECTIONS = 50


@lru_cache(maxsize=8)
def log_factorials(most: int) -> NDArray[np.float64]:
    """The logarithms of 0!..`most`!."""
    logs: NDArray[np.float64] = np.concatenate([[0.0], np.log(np.arange(1, most + 1)).cumsum()])
    return logs


def binomial(samples: int, p: float) -> NDArray[np.float64]:
    """P(Bin(samples, p) = j) for j = 0..samples; `p` is clipped to [0, 1]."""
    p = min(max(p, 0.0), 1.0)
    if p in (0.0, 1.0):
        certain = np.zeros(samples + 1)
        certain[round(p * samples)] = 1.0
        return certain
    j = np.arange(samples + 1)
    factorials = log_factorials(samples)
    logs = factorials[-1] - factorials - factorials[::-1] + j * np.log(p)
    probabilities: NDArray[np.float64] = np.exp(logs + (samples - j) * np.log1p(-p))
    return probabilities


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
        if binomial(samples, middle)[: count + 1].sum() <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def probability_of_at_most(count: int, samples: int, p: float) -> float:
    """P(Bin(samples, p) <= count), for p between 0 and 1, both excluded."""
    j = np.arange(count + 1)
    # Tables of few sizes, which stay in the cache.
    factorials = log_factorials(1 << samples.bit_length())
    logs = factorials[samples] - factorials[j] - factorials[samples - j]
    return float(np.exp(logs + j * np.log(p) + (samples - j) * np.log1p(-p)).sum())


def proportion_interval(count: float, samples: float, confidence: float) -> tuple[float, float]:
    """Approximate confidence interval of a proportion observed `count` times among `samples`, which may be
    means over repetitions and then need not be whole; 0 to 1 without samples.

    Wilson 1927, J. Amer. Statist. Assoc. 22, 209.
    """
    if not samples:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = count / samples, z * z / samples
    middle = share + spread / 2
    width = z * sqrt(max(share * (1 - share), 0.0) / samples + spread / samples / 4)
    return max((middle - width) / (1 + spread), 0.0), min((middle + width) / (1 + spread), 1.0)
