"""A policy applied to a calibration table, which has the logits of every exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Decision, Floats, Policy, Scaling


@dataclass(frozen=True)
class Outcome:
    """The exit (1-based), predicted class and confidence of each sample of a table: the calibrated
    probability of that class."""

    exits: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidence: Floats

    def accuracy(self, labels: NDArray[np.int64]) -> float:
        """The share of correct answers."""
        return float((self.predictions == labels).mean())

    def mean_cost(self, costs: Sequence[float]) -> float:
        """Mean of `costs`, the cost of leaving at each exit."""
        return float(np.asarray(costs, dtype=np.float64)[self.exits - 1].mean())

    def shares(self, exits: int) -> tuple[float, ...]:
        """The share of samples that leave at each of `exits` exits."""
        counts = np.bincount(self.exits, minlength=exits + 1)[1:]
        return tuple(float(count) / len(self.exits) for count in counts)


def simulate(policy: Policy, logits: Floats, scaling: Scaling) -> Outcome:
    """Apply `policy` to a table of every exit's logits, [K, N, C]."""
    count = logits.shape[1]
    exits = np.zeros(count, dtype=np.int64)
    predictions = np.zeros(count, dtype=np.int64)
    confidence = np.zeros(count, dtype=np.float32)
    remaining = np.arange(count)
    for exit_ in range(1, policy.max_exit + 1):
        decision = Decision(policy, exit_, [logits[k, remaining] for k in range(exit_)], scaling)
        leaving = remaining[decision.leaves]
        exits[leaving] = exit_
        predictions[leaving] = decision.probabilities[decision.leaves].argmax(axis=-1)
        confidence[leaving] = decision.confidence[decision.leaves]
        remaining = remaining[~decision.leaves]
    return Outcome(exits, predictions, confidence)
