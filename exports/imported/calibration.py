"""The images of a cascade as the held-out split that it is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exports.bundle.certificate import Reference, Target
from exports.bundle.policy import Floats, Scaling
from exports.bundle.reader import Table, as_stored
from exports.evaluation_data import EvaluationData, unfitted
from exports.photos import Photos
from exports.stage_runner import StageRunner
from exports.tuning.certificate import divide
from exports.tuning.scaling import agreement_weights
from exports.tuning.search import full_depth
from exports.tuning.simulation import simulate
from training.data.dataset import Split


def calibration_data(
    name: str, photos: Photos, stages: Sequence[bytes], reference: Reference
) -> EvaluationData:
    """The images as a held-out split, with the answers of `reference` where they have no labels."""
    labels = photos.labels
    target: Target = "labels"
    if labels is None:
        target = "agreement"
        labels = _answers(StageRunner(stages).logits(photos.images), reference)
    split = Split(photos.images, labels)
    counts = {"train": 0, "held_out": len(split), "test": 0}
    return EvaluationData(name, split, unfitted(split), counts, target, reference)


def _answers(logits: Floats, reference: Reference) -> NDArray[np.int64]:
    """The answers of `reference` int64 [N] for the logits [K, N, C] of all exits."""
    exits, samples, _ = logits.shape
    table = as_stored(Table(logits, np.zeros(samples, np.int64)))
    # Those that `measure` fits on, so that the weights are the bundle's.
    first, _ = divide(samples)
    weights = agreement_weights(table.take(first).logits, reference)
    scaling = Scaling((1.0,) * exits, (1.0,) * exits, weights)
    return simulate(full_depth(exits), table.logits, scaling).predictions
