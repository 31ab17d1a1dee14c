"""The test of certificates with the method `exact-trinomial`, which earlier versions wrote.

It orders samples by losses - gains. `exports.tuning.statistics.score_test` replaced it for new
certificates; old ones are verified with it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from exports.tuning.statistics.binomial import BISECTIONS, binomial, proportion_bound

# The share of the error probability spent on the nuisance parameter; Berger and Boos use 0.001.
NUISANCE_SHARE = 0.02


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
    up, down = binomial(samples, a), binomial(samples, b)
    at_least = np.concatenate([down[::-1].cumsum()[::-1], [0.0]])  # P(down >= j)
    needed = np.clip(np.arange(samples + 1) - difference, 0, samples + 1)
    return float(min((up * at_least[needed]).sum(), 1.0))
