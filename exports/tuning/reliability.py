"""Whether confidence is what it says (calibration), and whether it tells right from wrong (AUROC)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats, Scaling, running_ensemble, softmax
from exports.bundle.reader import Table

BINS = 15  # as in Guo et al.


@dataclass(frozen=True)
class Reliability:
    """The bins that hold samples, in order: mean confidence, accuracy and share of samples, float64
    [B] each, all in 0..1."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float:
        """ECE: the gap between accuracy and confidence, averaged over samples, in 0..1. Guo et al.
        2017, "On Calibration of Modern Neural Networks", eq. 3."""
        return float((self.share * np.abs(self.accuracy - self.confidence)).sum())


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Sort N samples into `bins` equal-width bins ((m - 1)/M, m/M] of confidence; both inputs [N].

    Guo et al. 2017, section 2.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    place = np.digitize(confidence, edges, right=True)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    sums = np.bincount(place, confidence, bins)[filled]
    hits = np.bincount(place, right, bins)[filled]
    return Reliability(sums / count[filled], hits / count[filled], count[filled] / len(confidence))


def failure_auroc(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """The probability that a right answer has more confidence than a wrong one, ties counting half.

    The area under the ROC curve of failure prediction (Hendrycks and Gimpel 2017), from N confidences
    and right answers, both [N]. None if all are right or all are wrong.
    """
    positives = int(np.count_nonzero(right))
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    wrong = np.sort(confidence[~right])
    below = np.searchsorted(wrong, confidence[right], side="left")
    up_to = np.searchsorted(wrong, confidence[right], side="right")
    return float((below + up_to).sum() / 2 / (positives * negatives))


@dataclass(frozen=True)
class Quality:
    """An exit's max-probability confidence: ECE in 0..1 over BINS bins, and failure AUROC, at
    temperature 1 and at the fitted one."""

    temperature: float
    ece_before: float
    ece_after: float
    auroc_before: float | None
    auroc_after: float | None


def qualities(table: Table, scaling: Scaling) -> tuple[tuple[Quality, ...], tuple[Quality, ...]]:
    """Of every exit alone, and of every ensemble of the exits so far, on `table`."""
    logits = list(table.logits)
    running = [running_ensemble(logits, k, scaling.weights) for k in range(1, len(logits) + 1)]
    return (
        _qualities(logits, scaling.temperatures, table.labels),
        _qualities(running, scaling.running_temperatures, table.labels),
    )


def _qualities(
    exits: list[Floats], temperatures: tuple[float, ...], labels: NDArray[np.int64]
) -> tuple[Quality, ...]:
    found = []
    for logits, temperature in zip(exits, temperatures, strict=True):
        right = logits.argmax(axis=-1) == labels
        before, after = (softmax(logits / np.float32(t)).max(axis=-1) for t in (1.0, temperature))
        found.append(
            Quality(
                temperature=temperature,
                ece_before=reliability(before, right).expected_calibration_error,
                ece_after=reliability(after, right).expected_calibration_error,
                auroc_before=failure_auroc(before, right),
                auroc_after=failure_auroc(after, right),
            )
        )
    return tuple(found)
