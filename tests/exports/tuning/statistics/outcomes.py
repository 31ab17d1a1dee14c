"""The exact distribution of losses and gains."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom


def trinomial(samples: int, p: float, q: float) -> np.ndarray:
    """P(losses = i, gains = j) of `samples` draws, [samples + 1, samples + 1]."""
    table = np.zeros((samples + 1, samples + 1))
    for i, chance in enumerate(binom.pmf(np.arange(samples + 1), samples, p)):
        j = np.arange(samples - i + 1)
        table[i, : samples - i + 1] = chance * binom.pmf(j, samples - i, q / (1 - p))
    return table
