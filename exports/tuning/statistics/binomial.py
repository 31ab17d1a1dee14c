"""The binomial distribution and exact limits of its proportion."""

from __future__ import annotations

from functools import lru_cache

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
