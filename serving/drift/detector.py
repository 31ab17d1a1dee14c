"""A sequential test of whether answers are still distributed as on the calibration table.

Every answer gets the rank of its category among the table's samples and the answers before it, with ties
broken at random: the conformal p-value of Vovk, Gammerman and Shafer 2005. As long as the answers and the
table's samples are independent draws of one distribution, these ranks are independent and uniform in
[0, 1], whatever that distribution is and however few samples the table has. The ranks are bet on with
several densities. For each of them

    R[n] = (1 + R[n - 1]) * density(rank[n])

is a Shiryaev-Roberts statistic. It sums the likelihood ratios of a change at each earlier answer, and
R[n] - n is a martingale while the ranks are uniform. So the probability that the mean of R reaches c
within n answers is at most n / c, however often one looks (an e-detector: Shin, Ramdas and Rinaldo 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]

# After so many answers a run ends and the next one begins with the table alone. A longer run would compare
# answers mostly with those before them, and follow a slow change.
RUN_ANSWERS = 20_000
# Answers that are computed on together: few enough for exponentials of sums to be finite.
BLOCK = 128
# Ranks are rounded down to this number of cells before they are bet on.
RANK_CELLS = 20
# Strengths of a shift towards higher or lower categories.
TILTS = (0.3, 0.6, 1.0, 1.6)
# Of the adaptive bet: what is left of past counts after a block, and the weights of the uniform density,
# in answers.
REMEMBERED_SHARE = 0.9
UNIFORM_ANSWERS = (200.0, 1000.0)

_EARLIER = np.tri(BLOCK, k=-1, dtype=np.bool_)


class Bets(Protocol):
    """Densities of ranks to bet on; each has the mean 1."""

    def densities(self) -> Numbers:
        """The densities [bets, cells] for the next ranks."""
        ...

    def learn(self, cells: Integers) -> None:
        """Take note of the rank cells [n] that were bet on."""
        ...


class TiltBets:
    """For ordered categories: exp(k (2 rank - 1)), higher or lower ranks are more frequent."""

    def __init__(self) -> None:
        centres = (np.arange(RANK_CELLS) + 0.5) / RANK_CELLS
        strengths = np.array([sign * tilt for tilt in TILTS for sign in (1, -1)])
        raw = np.exp(strengths[:, None] * (2 * centres - 1))
        self._densities: Numbers = raw / raw.mean(axis=1, keepdims=True)

    def densities(self) -> Numbers:
        """See Bets."""
        return self._densities

    def learn(self, cells: Integers) -> None:
        """See Bets: these densities are fixed."""


class AdaptiveBets:
    """For categories without an order: the shares of recent ranks, mixed with the uniform density."""

    def __init__(self, cells: int) -> None:
        self._recent = np.zeros(cells)

    def densities(self) -> Numbers:
        """See Bets."""
        uniform = np.array(UNIFORM_ANSWERS)[:, None]
        cells = len(self._recent)
        densities: Numbers = (self._recent * cells + uniform) / (self._recent.sum() + uniform)
        return densities

    def learn(self, cells: Integers) -> None:
        """See Bets."""
        share = REMEMBERED_SHARE ** (len(cells) / BLOCK)
        self._recent = share * self._recent + np.bincount(cells, minlength=len(self._recent))


class Detector:
    """Tests one category of the answers, and starts again after an alarm or RUN_ANSWERS answers."""

    def __init__(
        self,
        reference: Integers,
        bets: Callable[[], Bets],
        *,
        answers_per_false_alarm: float,
        rng: np.random.Generator,
    ) -> None:
        """`reference` [J] counts the categories of the table's samples; `bets` makes the bets of a run.

        While answers are distributed as the samples are, an alarm within n answers has a probability of at
        most n / `answers_per_false_alarm`. Alarms after it are more likely: they share the table with it.
        """
        self._reference = reference
        self._new_bets = bets
        self._limit = answers_per_false_alarm
        self._rng = rng
        self._start()

    @property
    def evidence(self) -> float:
        """How near an alarm is, from 0 to 1: the logarithm of the statistic against that of its limit."""
        statistic = float(self._sums.mean())
        return float(np.clip(np.log(max(statistic, 1.0)) / np.log(self._limit), 0.0, 1.0))

    def update(self, categories: Integers) -> list[int]:
        """Test the next answers, whose categories [n] are in 0..J-1; the positions of alarms among them."""
        alarms: list[int] = []
        at = 0
        while at < len(categories):
            size = min(BLOCK, len(categories) - at, RUN_ANSWERS - self._answers)
            used, alarm = self._test(categories[at : at + size])
            at += used
            if alarm:
                alarms.append(at - 1)
            if alarm or self._answers >= RUN_ANSWERS:
                self._start()
        return alarms

    def _start(self) -> None:
        self._pool = self._reference.astype(np.float64)
        self._answers = 0
        # Bets that knew earlier runs would know how the table differs from the distribution.
        self._bets = self._new_bets()
        self._sums: Numbers = np.zeros(len(self._bets.densities()))

    def _test(self, categories: Integers) -> tuple[int, bool]:
        """Test at most a block; how many answers were used, and whether the last of them gave an alarm."""
        densities = self._bets.densities()
        cells = (self._ranks(categories) * densities.shape[1]).astype(np.int64)
        cells = np.minimum(cells, densities.shape[1] - 1)
        logs = np.log(densities[:, cells]).cumsum(axis=1)
        # R[n] = exp(logs[n]) * (R[0] + the sum of exp(-logs[s]) over s < n), with logs[0] = 0.
        before = np.exp(-np.concatenate([np.zeros((len(logs), 1)), logs[:, :-1]], axis=1))
        sums = np.exp(logs) * (self._sums[:, None] + before.cumsum(axis=1))
        reached = np.flatnonzero(sums.mean(axis=0) >= self._limit)
        used = int(reached[0]) + 1 if len(reached) else len(categories)
        self._sums = sums[:, used - 1]
        self._pool += np.bincount(categories[:used], minlength=len(self._pool))
        self._answers += used
        self._bets.learn(cells[:used])
        return used, bool(len(reached))

    def _ranks(self, categories: Integers) -> Numbers:
        """The ranks [n] of the answers in turn, each among the pool, the answers before it and itself."""
        count = len(categories)
        earlier = _EARLIER[:count, :count]
        others, own = categories[None, :], categories[:, None]
        below = np.concatenate([[0.0], self._pool.cumsum()])[categories]
        below += ((others < own) & earlier).sum(axis=1)
        equal = self._pool[categories] + ((others == own) & earlier).sum(axis=1) + 1
        total = self._pool.sum() + np.arange(count) + 1
        ranks: Numbers = (below + self._rng.random(count) * equal) / total
        return ranks
