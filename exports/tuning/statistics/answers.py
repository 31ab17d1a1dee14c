"""Answers with their confidence, and what is left of them if those of low confidence are withheld."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.tuning.statistics.binomial import proportion_interval


@dataclass(frozen=True)
class AnsweredStats:
    """Of N samples, `answered` reach a limit of confidence, of which `correct` are answered correctly.

    Counts are whole, or means over the repetitions of a cross-validation.
    """

    samples: int
    answered: float
    correct: float

    @property
    def coverage(self) -> float:
        """The share of samples that are answered."""
        return self.answered / self.samples

    @property
    def precision(self) -> float | None:
        """The share of answers that are correct; None if nothing is answered."""
        return self.correct / self.answered if self.answered else None

    def coverage_interval(self, confidence: float) -> tuple[float, float]:
        """An approximate confidence interval of the coverage (Wilson 1927)."""
        return proportion_interval(self.answered, self.samples, confidence)

    def precision_interval(self, confidence: float) -> tuple[float, float]:
        """An approximate confidence interval of the precision (Wilson 1927); 0 to 1 without answers."""
        return proportion_interval(self.correct, self.answered, confidence)


@dataclass(frozen=True)
class Answers:
    """The answers of a policy to N samples, each `repeats` times: the confidence, float32 [N * repeats],
    and whether it is correct, bool [N * repeats]."""

    confidence: NDArray[np.float32]
    correct: NDArray[np.bool_]
    repeats: int = 1

    @property
    def samples(self) -> int:
        """The number of samples, N."""
        return len(self.confidence) // self.repeats

    def above(self, limits: NDArray[np.float64]) -> list[AnsweredStats]:
        """What is answered at each of `limits` [M]: samples whose confidence is at least the limit, in
        float32 as in `exports.bundle.policy.Decision`."""
        order = np.argsort(-self.confidence, kind="stable")
        correct = np.concatenate([[0], np.cumsum(self.correct[order])])
        answered = np.searchsorted(-self.confidence[order], -limits.astype(np.float32), "right")
        return [
            AnsweredStats(self.samples, count / self.repeats, float(correct[count]) / self.repeats)
            for count in answered.tolist()
        ]
