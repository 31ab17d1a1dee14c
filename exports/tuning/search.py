"""Fast evaluation of many policies on one calibration table.

`PolicyEvaluator` prepares a table so that evaluating a policy, in well under a millisecond, touches
no logits. `frontier` counts every combination of thresholds on a grid at once and keeps the best.
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
    combination,
    measure_confidence,
    softmax,
)
from exports.bundle.reader import Table
from exports.tuning.statistics.answers import Answers
from exports.tuning.statistics.policy_stats import PolicyStats, is_full_depth

Bools = NDArray[np.bool_]
Counts = NDArray[np.float64]

NEVER = 2.0  # a threshold above every confidence
# With four exits 20 thresholds each. A finer grid finds no better policies, only luckier ones.
MAX_GRID_POLICIES = 2**13
MAX_THRESHOLDS_PER_EXIT = 128
# One between 0 and NEVER.
MIN_THRESHOLDS_PER_EXIT = 3
# Standard errors added to a drop: 1.6 for a limit of it, as many for luck in the search.
CAUTION = 3.0


@dataclass(frozen=True)
class PolicyEvaluator:
    """A table of N samples and K exits, prepared for any policy.

    `confidence` is float32 [K, N] for every measure and combination, `correct` bool [K, N] for every
    combination, `ensemble_correct` bool [N] for the ensemble of all exits.
    """

    confidence: Mapping[tuple[Measure, Combine], Floats]
    correct: Mapping[Combine, Bools]
    ensemble_correct: Bools

    @classmethod
    def from_table(cls, table: Table, scaling: Scaling) -> PolicyEvaluator:
        """Prepare `table`, calibrated by `scaling`."""
        confidence: dict[tuple[Measure, Combine], Floats] = {}
        correct: dict[Combine, Bools] = {}
        exits = range(1, len(table.logits) + 1)
        for combine in get_args(Combine):
            probabilities = [
                softmax(calibrated(list(table.logits), k, combine, scaling)) for k in exits
            ]
            correct[combine] = np.stack([p.argmax(axis=-1) == table.labels for p in probabilities])
            for measure in get_args(Measure):
                confidence[measure, combine] = np.stack(
                    [measure_confidence(p, measure) for p in probabilities]
                )
        return cls(confidence, correct, correct["running"][-1])

    @property
    def exits(self) -> int:
        """The number of exits, K."""
        return len(self.correct["running"])

    @property
    def samples(self) -> int:
        """The number of samples, N."""
        return len(self.ensemble_correct)

    def take(self, index: NDArray[np.int64]) -> PolicyEvaluator:
        """The samples at `index`, in its order."""
        return PolicyEvaluator(
            {
                key: np.ascontiguousarray(values[:, index])
                for key, values in self.confidence.items()
            },
            {key: np.ascontiguousarray(values[:, index]) for key, values in self.correct.items()},
            self.ensemble_correct[index],
        )

    def evaluate(self, policy: Policy) -> PolicyStats:
        """Apply `policy`, which must be for K exits, to every sample.

        This repeats the rule of `exports.bundle.policy.Decision` on prepared confidences, for speed.
        `test_a_policy_is_evaluated_exactly_as_it_is_simulated` in tests/exports/tuning/test_search.py
        holds the two equal.
        """
        exit_index = self.exit_index(policy)
        correct = self.correct[combination(policy)][exit_index, np.arange(self.samples)]
        return PolicyStats(
            samples=self.samples,
            exit_counts=tuple(np.bincount(exit_index, minlength=self.exits).tolist()),
            correct=int(np.count_nonzero(correct)),
            losses=int(np.count_nonzero(self.ensemble_correct & ~correct)),
            gains=int(np.count_nonzero(correct & ~self.ensemble_correct)),
            full_depth=is_full_depth(policy),
        )

    def answers(self, policy: Policy) -> Answers:
        """The answers of `policy`, which must be for K exits, with the probability of the class answered."""
        combine = combination(policy)
        place = self.exit_index(policy), np.arange(self.samples)
        return Answers(self.confidence["max_prob", combine][place], self.correct[combine][place])

    def exit_index(self, policy: Policy) -> NDArray[np.intp]:
        """The exit, from 0, at which each sample leaves under `policy`, int64 [N]."""
        last = policy.max_exit - 1
        exit_index = np.full(self.samples, last)
        if policy.mode == "early_exit":
            confidence = self.confidence[policy.measure, policy.combine]
            for k in reversed(range(last)):
                exit_index[confidence[k] >= np.float32(min(policy.thresholds[k], NEVER))] = k
        return exit_index


@dataclass(frozen=True)
class FrontierPoint:
    """A policy of a frontier, with its mean cost and its drop on the samples searched, on which it looks
    better than it is."""

    policy: Policy
    cost: float
    drop: float


def full_depth(exits: int) -> Policy:
    """The policy that others are compared with: every sample goes through all exits and their ensemble
    answers."""
    return Policy(mode="ensemble", thresholds=(NEVER,) * (exits - 1), max_exit=exits)


def never_early(exits: int) -> Policy:
    """The same answers by a policy of early exits, whose thresholds can be lowered."""
    return Policy(combine="running", thresholds=(NEVER,) * (exits - 1), max_exit=exits)


def frontier(
    evaluator: PolicyEvaluator,
    costs: Sequence[float],
    caution: float = CAUTION,
    max_policies: int = MAX_GRID_POLICIES,
) -> list[FrontierPoint]:
    """The policies of least score for their mean cost, over every measure, combination and threshold of a
    grid, cheapest first.

    `costs` [K] is the cost of leaving at each exit. The grid has the same number of thresholds at
    each exit, at even quantiles of its confidences, with 0 and NEVER, and at most `max_policies`
    combinations for one measure and combination of logits. Every combination is counted exactly. If
    there are too many exits for MIN_THRESHOLDS_PER_EXIT each, no sample leaves at some of them.

    The score is the drop plus `caution` standard errors of it. A policy that seldom disagrees with the
    ensemble then wins over one that does equally well by luck.
    """
    grids = [
        _count_grid(evaluator, measure, combine, costs, max_policies)
        for measure, combine in evaluator.confidence
    ]
    candidates: list[tuple[float, float, int, int]] = []
    for place, grid in enumerate(grids):
        score = (grid.losses - grid.gains) / evaluator.samples
        score += caution * np.sqrt(grid.losses + grid.gains + 1) / evaluator.samples
        order = np.lexsort((score, grid.cost))
        best = order[_new_minima(score[order])]
        candidates += [(float(grid.cost[i]), float(score[i]), place, int(i)) for i in best]
    candidates.sort()
    found = _new_minima(np.array([score for _, score, _, _ in candidates]))
    return [grids[candidates[k][2]].point(candidates[k][3], evaluator.samples) for k in found]


@dataclass(frozen=True)
class _Grid:
    """Every combination of G1 x ... thresholds, those of the exits `places`, from 0, of K: mean cost, losses
    and gains, flat [G1 * ...]."""

    measure: Measure
    combine: Combine
    exits: int
    places: tuple[int, ...]
    thresholds: tuple[Floats, ...]
    cost: Counts
    losses: Counts
    gains: Counts

    def point(self, index: int, samples: int) -> FrontierPoint:
        """The policy at `index` of the flat arrays, counted on `samples`."""
        drop = float(self.losses[index] - self.gains[index]) / samples
        return FrontierPoint(self.policy(index), float(self.cost[index]), drop)

    def policy(self, index: int) -> Policy:
        """The policy at `index` of the flat arrays."""
        shape = [len(values) for values in self.thresholds] or [1]
        per_exit = np.unravel_index(index, shape)
        thresholds = [NEVER] * (self.exits - 1)
        for place, values, i in zip(self.places, self.thresholds, per_exit, strict=False):
            # Thresholds have six decimals, which survive float32.
            thresholds[place] = round(float(values[i]), 6)
        return Policy(
            measure=self.measure,
            combine=self.combine,
            thresholds=tuple(thresholds),
            max_exit=self.exits,
        )


def _count_grid(
    evaluator: PolicyEvaluator,
    measure: Measure,
    combine: Combine,
    costs: Sequence[float],
    max_policies: int,
) -> _Grid:
    """Count all combinations by cumulative sums over a histogram of the samples' confidences.

    A sample whose confidence at exit k lies in bin b leaves there under the thresholds 0..b and goes on
    under those above. Cumulative sums from above and from below along each axis therefore count every
    combination.
    """
    samples = evaluator.samples
    places = _searched_exits(evaluator.exits, max_policies)
    confidence = [evaluator.confidence[measure, combine][place] for place in places]
    per_exit = _thresholds_per_exit(len(places), max_policies)
    thresholds = tuple(_thresholds(values, per_exit) for values in confidence)
    bins = [
        np.searchsorted(t, values, side="right") - 1
        for t, values in zip(thresholds, confidence, strict=True)
    ]
    shape = [len(t) for t in thresholds]
    cost, losses, gains = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for k, place in enumerate([*places, evaluator.exits - 1]):
        axes = min(k + 1, len(places))
        correct = evaluator.correct[combine][place]
        cell = (
            np.ravel_multi_index(bins[:axes], shape[:axes]) if axes else np.zeros(samples, np.intp)
        )
        for total, factor, weight in (
            (cost, costs[place] / samples, None),
            (losses, 1.0, evaluator.ensemble_correct & ~correct),
            (gains, 1.0, correct & ~evaluator.ensemble_correct),
        ):
            size = int(np.prod(shape[:axes]))
            counts = np.bincount(cell, weight, size).astype(np.float64).reshape(shape[:axes])
            for axis in range(axes):
                counts = _below(counts, axis) if axis < k else _at_or_above(counts, axis)
            total += factor * counts.reshape(shape[:axes] + [1] * (len(places) - axes))
    counted = (values.ravel() for values in (cost, losses, gains))
    return _Grid(measure, combine, evaluator.exits, places, thresholds, *counted)


def _at_or_above(counts: Counts, axis: int) -> Counts:
    """For each threshold the samples at or above it."""
    return np.flip(np.cumsum(np.flip(counts, axis), axis), axis)


def _below(counts: Counts, axis: int) -> Counts:
    """For each threshold the samples below it."""
    below: Counts = np.cumsum(counts, axis) - counts
    return below


def _searched_exits(exits: int, max_policies: int) -> tuple[int, ...]:
    """The exits before the last, from 0, that have thresholds on the grid: all, or as many as can have
    MIN_THRESHOLDS_PER_EXIT, the first among them, evenly spread."""
    before_last, most = exits - 1, 0
    while most < before_last and MIN_THRESHOLDS_PER_EXIT ** (most + 1) <= max_policies:
        most += 1
    return tuple(i * (before_last - 1) // max(most - 1, 1) for i in range(most))


def _thresholds_per_exit(searched: int, max_policies: int) -> int:
    """How many thresholds each of the `searched` exits has, so that there are at most `max_policies`."""
    if not searched:
        return 0
    return min(int(max_policies ** (1 / searched) + 1e-9), MAX_THRESHOLDS_PER_EXIT)


def _thresholds(confidence: Floats, count: int) -> Floats:
    """At most `count`, float32, ascending: 0, even quantiles to six decimals, NEVER."""
    inner = np.quantile(confidence, np.linspace(0, 1, count)[1:-1]).round(6)
    return np.unique(np.concatenate([[0.0], inner, [NEVER]]).astype(np.float32))


def _new_minima(scores: Counts) -> NDArray[np.int64]:
    """The positions of the scores that are below all before them, the first included."""
    before = np.minimum.accumulate(scores)[:-1]
    return np.flatnonzero(np.concatenate([[True], scores[1:] < before]))
