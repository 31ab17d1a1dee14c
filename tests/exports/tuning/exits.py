"""A synthetic network of three exits."""

from __future__ import annotations

import numpy as np

from exports.bundle.reader import Table

COSTS = (1.0, 2.0, 3.0)


def table(count: int = 4000, seed: int = 0) -> Table:
    """Three exits with less noise at each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    shared = np.eye(10)[labels] * 2.0 + rng.normal(size=(count, 10))
    logits = [shared + rng.normal(scale=s, size=(count, 10)) for s in (1.2, 0.8, 0.4)]
    return Table(np.stack(logits).astype(np.float32), labels)
