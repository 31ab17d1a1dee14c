"""How well confidence is calibrated (ECE), and how well it separates right answers from wrong (AUROC)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats, Scaling, running_ensemble, softmax
from exports.bundle.reader import Table

BINS = 15  # as in Guo et al.


@dataclass(frozen=True)
class Reliability:
    """The bins that contain samples, in order: mean confidence, accuracy and share of samples, each
    float64 [B] in 0..1."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    share: NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float:
        """ECE: the gap between accuracy and confidence, averaged over samples, in 0..1. Guo et al.
        2017, "On Calibration of Modern Neural Networks", eq. 3."""
        return float((self.share * np.abs(self.accuracy - self.confidence)).sum())


def reliability(confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Sort N samples into `bins` equal-width bins ((m - 1)/M, m/M] of confidence; both inputs [N].

    Guo et al. 2017, section 2.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    index = np.digitize(confidence, edges, right=True)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    confidence_sum = np.bincount(index, confidence, bins)[filled]
    correct_sum = np.bincount(index, correct, bins)[filled]
    count = count[filled]
    return Reliability(confidence_sum / count, correct_sum / count, count / len(confidence))


def failure_auroc(confidence: Floats, correct: NDArray[np.bool_]) -> float | None:
    """The probability that a correct answer has more confidence than a wrong one; ties count half.

    The area under the ROC curve of failure prediction (Hendrycks and Gimpel 2017); both inputs [N].
    None if all answers are correct or all are wrong.
    """
    positives = int(np.count_nonzero(correct))
    negatives = len(correct) - positives
    if not positives or not negatives:
        return None
    wrong = np.sort(confidence[~correct])
    below = np.searchsorted(wrong, confidence[correct], side="left")
    up_to = np.searchsorted(wrong, confidence[correct], side="right")
    return float((below + up_to).sum() / 2 / (positives * negatives))


@dataclass(frozen=True)
class ConfidenceQuality:
    """The quality of an exit's max-probability confidence, at temperature 1 (before) and at the fitted
    temperature (after): ECE in 0..1 over BINS bins, and failure AUROC."""

    temperature: float
    ece_before: float
    ece_after: float
    auroc_before: float | None
    auroc_after: float | None


def confidence_quality(
    table: Table, scaling: Scaling
) -> tuple[tuple[ConfidenceQuality, ...], tuple[ConfidenceQuality, ...]]:
    """The quality of every exit alone, and of every running ensemble, on `table`."""
    logits = list(table.logits)
    running = [running_ensemble(logits, k, scaling.weights) for k in range(1, len(logits) + 1)]
    return (
        _quality(logits, scaling.temperatures, table.labels),
        _quality(running, scaling.running_temperatures, table.labels),
    )


def _quality(
    exits: list[Floats], temperatures: tuple[float, ...], labels: NDArray[np.int64]
) -> tuple[ConfidenceQuality, ...]:
    qualities = []
    for logits, temperature in zip(exits, temperatures, strict=True):
        correct = logits.argmax(axis=-1) == labels
        before, after = (softmax(logits / np.float32(t)).max(axis=-1) for t in (1.0, temperature))
        qualities.append(
            ConfidenceQuality(
                temperature=temperature,
                ece_before=reliability(before, correct).expected_calibration_error,
                ece_after=reliability(after, correct).expected_calibration_error,
                auroc_before=failure_auroc(before, correct),
                auroc_after=failure_auroc(after, correct),
            )
        )
    return tuple(qualities)
