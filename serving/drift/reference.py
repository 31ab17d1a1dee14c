"""What is tested of an answer, and what the calibration table says about it under a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Decision, Floats, Policy
from exports.bundle.reader import Table
from exports.tuning.simulation import simulate
from serving.inference.engine import Prediction

# exits: where answers left. confidence: how far the probabilities are from uniform. classes: the likeliest.
Signal = Literal["exits", "confidence", "classes"]
SIGNALS: tuple[Signal, ...] = get_args(Signal)
# Bins of the confidence, with the same number of the table's samples in each.
CONFIDENCE_BINS = 50


@dataclass(frozen=True)
class Answers:
    """What is tested of n answers: exits int64 [n] from 0, sharpness float [n], likeliest classes int64
    [n], and the calibrated probabilities of these classes float32 [n]."""

    exits: NDArray[np.int64]
    sharpness: NDArray[np.float64]
    classes: NDArray[np.int64]
    confidence: Floats

    @classmethod
    def of_predictions(cls, predictions: Sequence[Prediction]) -> Answers:
        """Those of `predictions`."""
        return cls(
            np.array([prediction.exit - 1 for prediction in predictions]),
            sharpness(np.stack([prediction.probabilities for prediction in predictions])),
            np.array([prediction.index for prediction in predictions]),
            np.array([prediction.confidence for prediction in predictions], dtype=np.float32),
        )

    def take(self, index: NDArray[np.int64]) -> Answers:
        """The answers at `index`, in its order."""
        return Answers(
            self.exits[index], self.sharpness[index], self.classes[index], self.confidence[index]
        )


class Reference:
    """The answers of a policy on the calibration table, and categories for answers like them."""

    def __init__(self, table: Table, policy: Policy, manifest: Manifest) -> None:
        outcome = simulate(policy, table.logits, manifest.scaling)
        values = np.zeros(len(outcome.exits))
        for exit_ in range(1, policy.exits + 1):
            rows = np.flatnonzero(outcome.exits == exit_)
            if len(rows):
                logits = [table.logits[k, rows] for k in range(exit_)]
                decision = Decision(policy, exit_, logits, manifest.scaling)
                values[rows] = sharpness(decision.probabilities)
        self.exits = policy.exits
        self.answers = Answers(outcome.exits - 1, values, outcome.predictions, outcome.confidence)
        inner = np.linspace(0, 1, CONFIDENCE_BINS + 1)[1:-1]
        self._edges = np.unique(np.quantile(values, inner))
        sizes = (policy.exits, len(self._edges) + 1, len(manifest.labels))
        self.counts = {
            signal: np.bincount(categories, minlength=size)
            for (signal, categories), size in zip(
                self.categories(self.answers).items(), sizes, strict=True
            )
        }

    def categories(self, answers: Answers) -> dict[Signal, NDArray[np.int64]]:
        """The categories [n] of `answers` for each of SIGNALS, in their order."""
        bins = np.searchsorted(self._edges, answers.sharpness).astype(np.int64)
        return dict(zip(SIGNALS, (answers.exits, bins, answers.classes), strict=True))


def sharpness(probabilities: Floats) -> NDArray[np.float64]:
    """How far probabilities [n, C] are from uniform: minus the mean of their logarithms, [n].

    It is the divergence of the uniform distribution from them, up to a constant, and changes earlier than
    the probability of the likeliest class, since it depends on all classes.
    """
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    values: NDArray[np.float64] = -logs.mean(axis=1, dtype=np.float64)
    return values
