"""Rows of measured runs, and paired differences between two rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from benchmarks.method.measure import BUDGETS, unpack

CONFIDENCE = 0.95
Run = Mapping[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """The measured runs of one method, by seed."""

    key: str
    title: str
    runs: Mapping[int, Run]

    @property
    def exits(self) -> int:
        """The number of exits, K."""
        return len(next(iter(self.runs.values()))["exits"])

    def accuracies(self, column: int) -> list[float]:
        """The accuracy in percent of every seed: of exit `column`, counted from 0, then of the ensemble of
        equal weights, then of the fitted one."""
        return [
            [*run["exits"], run["ensemble"], run["fitted"]][column] for run in self.runs.values()
        ]

    def early(self, budget: int) -> list[float]:
        """The accuracy of every seed at the mean cost BUDGETS[`budget`]; empty if a seed has none."""
        points = [run["early"][budget] if run["early"] else None for run in self.runs.values()]
        return [] if None in points else [point["accuracy"] for point in points if point]


@dataclass(frozen=True)
class Difference:
    """A mean difference in points, with half the width of its 95 % intervals.

    `seeds` covers what another seed changes (Student's t over the paired seeds; None for one seed),
    `images` what other test images would (normal, over images that were paired).
    """

    mean: float
    seeds: float | None
    images: float

    @property
    def clear(self) -> bool:
        """Whether every interval that is known excludes 0."""
        return abs(self.mean) > max(self.images, self.seeds or 0.0)


def difference(
    better: Row, other: Row, column: int, against: int | None = None
) -> Difference | None:
    """`better` minus `other`, in the seeds that both have; None if there is none.

    `column` is as in Row.accuracies, `against` that of `other` if it is not the same.
    """
    seeds = sorted(better.runs.keys() & other.runs.keys())
    if not seeds:
        return None
    images = np.stack(
        [
            _correct(better.runs[seed], column)
            - _correct(other.runs[seed], column if against is None else against)
            for seed in seeds
        ]
    )
    means = (100 * images.mean(axis=1)).tolist()
    width = None
    if len(seeds) > 1:
        quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(seeds) - 1))
        width = quantile * stdev(means) / math.sqrt(len(seeds))
    each = 100 * images.mean(axis=0)
    spread = float(norm.ppf((1 + CONFIDENCE) / 2)) * float(each.std(ddof=1)) / math.sqrt(len(each))
    return Difference(fmean(means), width, spread)


def best_exit(row: Row) -> int:
    """The exit, counted from 0, with the best mean accuracy."""
    return max(range(row.exits), key=lambda k: fmean(row.accuracies(k)))


def budgets_met(rows: Sequence[Row]) -> list[int]:
    """The indices in BUDGETS at which every row has a policy."""
    return [k for k in range(len(BUDGETS)) if all(row.early(k) for row in rows)]


def _correct(run: Run, column: int) -> Floats:
    return unpack(run["correct"][column], run["images"]).astype(np.float64)
