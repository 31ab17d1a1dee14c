"""A limit and an interval of the drop in accuracy, by Tango's score statistic.

Of n samples L are losses and G gains, with the rates p and q, and the drop is p - q. The limit is exact
(unconditional), the interval approximate. docs/guide/tuning.md explains the test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from exports.tuning.statistics.binomial import log_factorials, proportion_bound

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]
Count = TypeVar("Count", float, NDArray[np.float64])

# The share of the error probability spent on the nuisance parameter; Berger and Boos use 0.001.
NUISANCE_SHARE = 0.02
# Values of the nuisance parameter at which a tail is computed before its maximum is refined.
NUISANCE_POINTS = 24
REFINED_POINTS = 9
LIMIT_BISECTIONS = 24
INTERVAL_BISECTIONS = 40
# A binomial further from its mean than this many standard deviations has a probability below 1e-15.
MAX_DEVIATIONS = 8.5
TINY = 1e-300


@lru_cache(maxsize=65536)
def drop_holds(losses: int, gains: int, samples: int, permitted: float, confidence: float) -> bool:
    """Whether the test at level 1 - `confidence` rejects a true drop of `permitted` or more.

    `permitted` is a share, at least 0. Berger and Boos 1994: the probability of a statistic as small as
    the observed one is maximised over a confidence interval of the disagreement rate p + q, whose
    error probability is taken off the level.
    """
    # A policy that never differs from the ensemble has a drop of 0, and always looks like this.
    if permitted <= 0 and losses == gains == 0:
        return False
    error = 1 - confidence
    nuisance = NUISANCE_SHARE * error / 2
    low = 1 - proportion_bound(samples - losses - gains, samples, 1 - nuisance)
    high = proportion_bound(losses + gains, samples, 1 - nuisance)
    # The disagreement rate is at least the drop.
    if high < permitted:
        return True
    observed = _score(losses, gains, samples, permitted)
    # The statistic is nearly normal. Where it is far from significant the exact tail is not needed.
    if observed > NormalDist().inv_cdf(2 * error):
        return False
    region = _Region.up_to(observed, samples, permitted, high)
    level = (1 - NUISANCE_SHARE) * error
    return region.largest_probability(max(low, permitted), high, level) <= level


@lru_cache(maxsize=4096)
def drop_bound(losses: int, gains: int, samples: int, confidence: float) -> float:
    """Upper confidence limit in [0, 1] of the drop: about the smallest `permitted` that `drop_holds`
    accepts, found by bisection."""
    low = max((losses - gains) / samples, 0.0)
    approximate = drop_interval(losses, gains, samples, 1 - (1 - confidence) / 2)[1]
    high = min(max(approximate, low) + 1 / samples, 1.0)
    while high < 1 and not drop_holds(losses, gains, samples, high, confidence):
        low, high = high, min(2 * high, 1.0)
    for _ in range(LIMIT_BISECTIONS):
        middle = (low + high) / 2
        if drop_holds(losses, gains, samples, middle, confidence):
            high = middle
        else:
            low = middle
    return high


def drop_interval(
    losses: float, gains: float, samples: int, confidence: float
) -> tuple[float, float]:
    """Approximate confidence interval in [-1, 1] of the drop, from `losses` and `gains`, which may be
    means over repetitions and then need not be whole.

    The drops that Tango's test does not reject at level 1 - `confidence`, two-sided. Tango 1998.
    """
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    return (
        -_upper_limit(gains, losses, samples, quantile),
        _upper_limit(losses, gains, samples, quantile),
    )


def _upper_limit(losses: float, gains: float, samples: int, quantile: float) -> float:
    low, high = (losses - gains) / samples, 1.0
    for _ in range(INTERVAL_BISECTIONS):
        middle = (low + high) / 2
        if _score(losses, gains, samples, middle) < -quantile:
            high = middle
        else:
            low = middle
    return high


def _score(losses: Count, gains: Count, samples: int, drop: float) -> Count:
    """Tango's statistic for the hypothesis p - q = `drop`; negative if less is lost than that.

    (L - G - n d) / sqrt(n (2 q + d (1 - d))), where q is the most likely rate of gains under the
    hypothesis. Tango 1998, Statistics in Medicine 17, 891. Counts are numbers or arrays.
    """
    linear = (2 * samples - losses + gains) * drop - losses - gains
    constant = -gains * drop * (1 - drop)
    # What is negative under a root is so by rounding.
    rate = (abs(linear**2 - 8 * samples * constant) ** 0.5 - linear) / (4 * samples)
    deviation = abs(samples * (2 * rate + drop * (1 - drop))) ** 0.5
    # Where the deviation is 0, so is the difference.
    statistic: Count = (losses - gains - samples * drop) / (deviation + TINY)
    return statistic


@dataclass(frozen=True)
class _Region:
    """The outcomes whose statistic for `drop` is at most the observed one.

    Among m = 0, 1, ... disagreements they are those with at most `losses[m]` losses, since the
    statistic grows with the losses; -1 stands for none.
    """

    samples: int
    drop: float
    losses: Integers

    @classmethod
    def up_to(cls, observed: float, samples: int, drop: float, largest_rate: float) -> _Region:
        """The region for rates of disagreement up to `largest_rate`."""
        most = _range(samples, largest_rate)[1]
        total = np.arange(most + 1)
        low, high = np.full(most + 1, -1), total.copy()
        # Rounding must not exclude outcomes equal to the observed one.
        limit = observed + 1e-9 * (1 + abs(observed))
        for _ in range(most.bit_length() + 1):
            middle = (low + high + 1) // 2
            trial = np.maximum(middle, 0).astype(np.float64)
            below = _score(trial, total - trial, samples, drop) <= limit
            low = np.where(below & (middle > low), middle, low)
            high = np.where(below, high, np.maximum(middle - 1, low))
        return cls(samples, drop, low)

    def largest_probability(self, low: float, high: float, enough: float) -> float:
        """The largest probability over the rates of disagreement in [low, high], or one above `enough`.

        It is a smooth function of the rate, whose scale is even in the rate's root.
        """
        roots = np.linspace(math.sqrt(low), math.sqrt(high), NUISANCE_POINTS)
        found: list[float] = []
        for root in roots:
            found.append(self.probability(float(root) ** 2))
            if found[-1] > enough:
                return found[-1]
        best = int(np.argmax(found))
        around = roots[max(best - 1, 0)], roots[min(best + 1, len(roots) - 1)]
        refined = np.linspace(*around, REFINED_POINTS)
        return max(*found, *(self.probability(float(root) ** 2) for root in refined))

    def probability(self, rate: float) -> float:
        """The probability of the region if the samples disagree at `rate` >= drop.

        The number of disagreements is binomial, and so are the losses among them.
        """
        first, last = _range(self.samples, rate)
        total = np.arange(first, min(last, len(self.losses) - 1) + 1)
        chance = np.exp(_log_binomial(total, np.array(self.samples), rate))
        # Without disagreements the share of losses among them does not matter.
        share = (1 + self.drop / rate) / 2 if rate > 0 else 0.5
        return float((chance * self._losses_probability(total, share)).sum())

    def _losses_probability(self, total: Integers, share: float) -> Numbers:
        """P(Bin(m, share) <= losses[m]) for every m of `total`."""
        most = self.losses[total]
        if share >= 1:
            return np.where(most >= total, 1.0, 0.0)
        deviation = np.sqrt(total * share * (1 - share))
        least = np.maximum(np.floor(total * share - MAX_DEVIATIONS * deviation - 2), 0)
        width = max(int((most - least).max()) + 1, 0)
        losses = most[:, None] - np.arange(width)
        logs = _log_binomial(np.maximum(losses, 0), total[:, None], share)
        probability: Numbers = np.where(losses >= 0, np.exp(logs), 0.0).sum(axis=1)
        return probability


def _range(samples: int, rate: float) -> tuple[int, int]:
    """The least and the largest count of Bin(samples, rate) with a probability that matters."""
    width = MAX_DEVIATIONS * math.sqrt(samples * rate * (1 - rate)) + MAX_DEVIATIONS
    return max(int(samples * rate - width), 0), min(int(samples * rate + width) + 1, samples)


def _log_binomial(count: Integers, samples: Integers, p: float) -> Numbers:
    """log P(Bin(samples, p) = count), element-wise, for 0 <= count <= samples and p > 0."""
    if p >= 1:
        return np.where(count == samples, 0.0, -np.inf)
    factorials = log_factorials(int(samples.max()))
    logs: Numbers = factorials[samples] - factorials[count] - factorials[samples - count]
    logs += count * math.log(p) + (samples - count) * math.log1p(-p)
    return logs
