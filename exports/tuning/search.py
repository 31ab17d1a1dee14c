"""Policies by the thousand: a calibration table prepared so that no logit is looked at twice.

`PolicyEvaluator` evaluates one policy in well under a millisecond, exactly as
`exports.bundle.policy.simulate` would.
`frontier` looks at every combination of thresholds on a grid at once and keeps those worth having.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import (
    Combine,
    Floats,
    Measure,
    Policy,
    Scaling,
    calibrated,
    measure_confidence,
    softmax,
)
from exports.bundle.reader import Table

Bools = NDArray[np.bool_]
Counts = NDArray[np.float64]

NEVER = 2.0  # a threshold that no confidence reaches
# With four exits 40 thresholds each. A finer grid finds no better policies, only luckier ones.
GRID_POLICIES = 2**16
MAX_THRESHOLDS = 128


@dataclass(frozen=True)
class PolicyStats:
    """What a policy does on N samples.

    `left` [K] counts those that leave at each exit, `right` the right answers, `losses` those wrong
    where the ensemble of all exits is right, `gains` the reverse.
    """

    samples: int
    left: tuple[int, ...]
    right: int
    losses: int
    gains: int

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.right / self.samples

    @property
    def drop(self) -> float:
        """How far the accuracy is below the ensemble's, as a share; negative where it is above."""
        return (self.losses - self.gains) / self.samples

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of samples that leaves at each exit."""
        return tuple(count / self.samples for count in self.left)

    def mean_cost(self, costs: Sequence[float]) -> float:
        """Mean of `costs`, the cost of leaving at each exit."""
        return float(np.dot(self.left, costs)) / self.samples


@dataclass(frozen=True)
class PolicyEvaluator:
    """What every policy on a table of N samples and K exits can see.

    Confidences float32 [K, N] by measure and combination, right answers bool [K, N] by combination, and
    the ensemble's right answers, bool [N].
    """

    confidences: Mapping[tuple[Measure, Combine], Floats]
    right: Mapping[Combine, Bools]
    ensemble: Bools

    @classmethod
    def of(cls, table: Table, scaling: Scaling) -> PolicyEvaluator:
        """Prepare `table`, calibrated by `scaling`."""
        confidences: dict[tuple[Measure, Combine], Floats] = {}
        right: dict[Combine, Bools] = {}
        exits = range(1, len(table.logits) + 1)
        for combine in get_args(Combine):
            probabilities = [
                softmax(calibrated(list(table.logits), k, combine, scaling)) for k in exits
            ]
            right[combine] = np.stack([p.argmax(axis=-1) == table.labels for p in probabilities])
            for measure in get_args(Measure):
                confidences[measure, combine] = np.stack(
                    [measure_confidence(p, measure) for p in probabilities]
                )
        return cls(confidences, right, right["running"][-1])

    @property
    def exits(self) -> int:
        """The number of exits, K."""
        return len(self.right["running"])

    @property
    def samples(self) -> int:
        """The number of samples, N."""
        return len(self.ensemble)

    def take(self, index: NDArray[np.int64]) -> PolicyEvaluator:
        """The samples at `index`, in its order."""
        return PolicyEvaluator(
            {
                key: np.ascontiguousarray(values[:, index])
                for key, values in self.confidences.items()
            },
            {key: np.ascontiguousarray(values[:, index]) for key, values in self.right.items()},
            self.ensemble[index],
        )

    def evaluate(self, policy: Policy) -> PolicyStats:
        """Apply `policy`, which must be for K exits, to every sample."""
        last = policy.max_exit - 1
        exit_ = np.full(self.samples, last)
        combine = policy.combine
        if policy.mode == "early_exit":
            confidence = self.confidences[policy.measure, combine]
            for k in reversed(range(last)):
                exit_[confidence[k] >= np.float32(min(policy.thresholds[k], NEVER))] = k
        else:
            combine = "running" if policy.mode == "ensemble" else "single"
        right = self.right[combine][exit_, np.arange(self.samples)]
        return PolicyStats(
            samples=self.samples,
            left=tuple(np.bincount(exit_, minlength=self.exits).tolist()),
            right=int(np.count_nonzero(right)),
            losses=int(np.count_nonzero(self.ensemble & ~right)),
            gains=int(np.count_nonzero(right & ~self.ensemble)),
        )


@dataclass(frozen=True)
class Point:
    """A policy of a frontier: its mean cost and its drop as the search saw them."""

    policy: Policy
    cost: float
    drop: float


def full_depth(exits: int) -> Policy:
    """The policy that others are held to: every sample through all exits, answered by their ensemble."""
    return Policy(mode="ensemble", thresholds=(NEVER,) * (exits - 1), max_exit=exits)


def frontier(
    evaluator: PolicyEvaluator,
    costs: Sequence[float],
    caution: float = 0.0,
    grid_policies: int = GRID_POLICIES,
) -> list[Point]:
    """The Pareto set of (mean cost, drop) over every measure, combination and threshold of a grid.

    `costs` [K] is the cost of leaving at each exit. The grid has the same number of thresholds at each
    exit, `grid_policies` combinations at most, at even quantiles of its confidences, with 0 and NEVER.
    Every combination is counted exactly. Cheapest first; the drop falls along the list. With `caution`
    it is not the drop that falls, but the drop plus that many standard errors of it, so that a policy
    that seldom disagrees with the ensemble wins over one that does as well by luck.
    """
    found: list[tuple[float, float, Point]] = []
    for measure, combine in evaluator.confidences:
        sweep = _sweep(evaluator, measure, combine, costs, grid_policies)
        drop = (sweep.losses - sweep.gains) / evaluator.samples
        error = np.sqrt(sweep.losses + sweep.gains + 1) / evaluator.samples
        score = drop + caution * error
        order = np.lexsort((score, sweep.cost))
        for i in order[_falling(score[order])]:
            point = Point(sweep.policy(i), float(sweep.cost[i]), float(drop[i]))
            found.append((point.cost, float(score[i]), point))
    found.sort(key=lambda each: each[:2])
    return [found[i][2] for i in _falling(np.array([score for _, score, _ in found]))]


@dataclass(frozen=True)
class _Sweep:
    """Every combination of G1 x ... thresholds: mean cost, losses and gains, flat [G1 * ...]."""

    measure: Measure
    combine: Combine
    thresholds: tuple[Floats, ...]
    cost: Counts
    losses: Counts
    gains: Counts

    def policy(self, place: int) -> Policy:
        """The policy at `place` of the flat arrays."""
        where = np.unravel_index(place, [len(each) for each in self.thresholds] or [1])
        return Policy(
            measure=self.measure,
            combine=self.combine,
            # Thresholds have six decimals, which a float32 gives back.
            thresholds=tuple(
                round(float(each[i]), 6) for each, i in zip(self.thresholds, where, strict=False)
            ),
            max_exit=len(self.thresholds) + 1,
        )


def _sweep(
    evaluator: PolicyEvaluator,
    measure: Measure,
    combine: Combine,
    costs: Sequence[float],
    grid_policies: int,
) -> _Sweep:
    """Count all combinations by cumulative sums over a histogram of the samples' confidences.

    A sample whose confidence at exit k lies in bin b leaves there under the thresholds 0..b and goes on
    under those above, so sums from above and from below along each axis count every combination.
    """
    exits, samples = evaluator.exits, evaluator.samples
    confidence, right = evaluator.confidences[measure, combine], evaluator.right[combine]
    each = _thresholds_per_exit(exits, grid_policies)
    thresholds = tuple(_thresholds(own, each) for own in confidence[:-1])
    bins = [
        np.searchsorted(t, own, side="right") - 1
        for t, own in zip(thresholds, confidence[:-1], strict=True)
    ]
    shape = [len(t) for t in thresholds]
    cost, losses, gains = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for k in range(exits):
        axes = min(k + 1, exits - 1)
        place = (
            np.ravel_multi_index(bins[:axes], shape[:axes]) if axes else np.zeros(samples, np.intp)
        )
        for total, factor, weight in (
            (cost, costs[k] / samples, None),
            (losses, 1.0, evaluator.ensemble & ~right[k]),
            (gains, 1.0, right[k] & ~evaluator.ensemble),
        ):
            size = int(np.prod(shape[:axes]))
            counts = np.bincount(place, weight, size).astype(np.float64).reshape(shape[:axes])
            for axis in range(axes):
                counts = _stay(counts, axis) if axis < k else _leave(counts, axis)
            total += factor * counts.reshape(shape[:axes] + [1] * (exits - 1 - axes))
    return _Sweep(measure, combine, thresholds, cost.ravel(), losses.ravel(), gains.ravel())


def _leave(counts: Counts, axis: int) -> Counts:
    """For each threshold the samples at or above it."""
    return np.flip(np.cumsum(np.flip(counts, axis), axis), axis)


def _stay(counts: Counts, axis: int) -> Counts:
    """For each threshold the samples below it."""
    below: Counts = np.cumsum(counts, axis) - counts
    return below


def _thresholds_per_exit(exits: int, grid_policies: int) -> int:
    if exits < 2:
        return 0
    return min(max(int(grid_policies ** (1 / (exits - 1)) + 1e-9), 3), MAX_THRESHOLDS)


def _thresholds(confidence: Floats, count: int) -> Floats:
    """At most `count`, float32, ascending: 0, even quantiles to six decimals, NEVER."""
    inner = np.quantile(confidence, np.linspace(0, 1, count)[1:-1]).round(6)
    return np.unique(np.concatenate([[0.0], inner, [NEVER]]).astype(np.float32))


def _falling(scores: Counts) -> NDArray[np.int64]:
    """The positions of scores below all before them; the first is one."""
    before = np.minimum.accumulate(scores)[:-1]
    return np.flatnonzero(np.concatenate([[True], scores[1:] < before]))
