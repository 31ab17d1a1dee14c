"""A synthetic network of three exits, and samples prepared for tuning."""

from __future__ import annotations

import numpy as np

from exports.bundle.reader import Table
from exports.tuning.certificate import selection_size
from exports.tuning.goal import TuningData
from exports.tuning.search import PolicyEvaluator

SOURCE = "0" * 64
COSTS = (1.0, 2.0, 3.0)


def table(count: int = 4000, seed: int = 0) -> Table:
    """Three exits with less noise at each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    shared = np.eye(10)[labels] * 2.0 + rng.normal(size=(count, 10))
    logits = [shared + rng.normal(scale=s, size=(count, 10)) for s in (1.2, 0.8, 0.4)]
    return Table(np.stack(logits).astype(np.float32), labels)


def one_measure(whole: PolicyEvaluator) -> PolicyEvaluator:
    """A sixth of the search, which is fast; the statements hold for any search."""
    measure = ("max_prob", "running")
    return PolicyEvaluator(
        {measure: whole.confidence[measure]},  # type: ignore[dict-item]
        whole.correct,
        whole.ensemble_correct,
    )


def divided(whole: PolicyEvaluator, target: str = "labels") -> TuningData:
    """Samples in random order, those to choose on and those to certify on."""
    first, second = np.split(np.arange(whole.samples), [selection_size(whole.samples)])
    return TuningData(whole, whole.take(first), whole.take(second), SOURCE, target)  # type: ignore[arg-type]
