"""A part of a sequence that represents the whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the indices 0..`count`-1, as far apart as possible, int64."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
