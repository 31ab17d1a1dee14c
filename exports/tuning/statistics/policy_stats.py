"""What a policy does on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exports.bundle.policy import Policy, combination
from exports.tuning.statistics.score_test import drop_interval


@dataclass(frozen=True)
class PolicyStats:
    """What a policy does on N samples.

    `exit_counts` [K] counts the samples that leave at each exit, `correct` the correct answers,
    `losses` the wrong answers where the ensemble of all exits is correct, `gains` the reverse. Counts are
    whole, or means over the repetitions of a cross-validation. `full_depth` says whether it answers as the
    ensemble on any sample, not only on these.
    """

    samples: int
    exit_counts: tuple[float, ...]
    correct: float
    losses: float
    gains: float
    full_depth: bool = False

    @property
    def accuracy(self) -> float:
        """The share of correct answers."""
        return self.correct / self.samples

    @property
    def ensemble_accuracy(self) -> float:
        """The share of samples on which the ensemble of all exits is correct."""
        return (self.correct + self.losses - self.gains) / self.samples

    @property
    def drop(self) -> float:
        """How far the accuracy is below the ensemble's, as a share; negative if it is above."""
        return (self.losses - self.gains) / self.samples

    def drop_interval(self, confidence: float) -> tuple[float, float]:
        """An approximate confidence interval of the drop (Tango 1998); 0 at full depth."""
        if self.full_depth and self.losses == self.gains == 0:
            return 0.0, 0.0
        return drop_interval(self.losses, self.gains, self.samples, confidence)

    @property
    def exit_shares(self) -> tuple[float, ...]:
        """The share of samples that leaves at each exit."""
        return tuple(count / self.samples for count in self.exit_counts)

    def mean_cost(self, costs: Sequence[float]) -> float:
        """Mean of `costs`, the cost of leaving at each exit."""
        return float(np.dot(self.exit_counts, costs)) / self.samples


def is_full_depth(policy: Policy) -> bool:
    """Whether every sample goes through all exits and their ensemble answers, whatever its logits."""
    early = any(policy.may_leave(exit_) for exit_ in range(1, policy.exits))
    return not early and (policy.exits == 1 or combination(policy) == "running")
