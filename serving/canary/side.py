"""What one version has answered while a canary runs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# The latest answers whose times count.
WINDOW = 1000
# Fewer answers have no 95th or 99th percentile.
MIN_ANSWERS = 100


class Times:
    """The latest WINDOW times in seconds. Used by one thread."""

    def __init__(self) -> None:
        self._seconds = np.zeros(WINDOW)
        self._count = 0

    def add(self, seconds: float) -> None:
        """Add one."""
        self._seconds[self._count % WINDOW] = seconds
        self._count += 1

    def mean(self) -> float | None:
        """The mean; None without any."""
        return float(self._known.mean()) if self._count else None

    def quantile(self, share: float) -> float | None:
        """The least time that `share` of the times do not exceed; None with fewer than MIN_ANSWERS."""
        if self._count < MIN_ANSWERS:
            return None
        known = self._known
        rank = max(math.ceil(share * len(known)), 1) - 1
        # Much faster than np.quantile.
        return float(np.partition(known, rank)[rank])

    @property
    def _known(self) -> NDArray[np.float64]:
        return self._seconds[: self._count]


@dataclass
class Side:
    """A version's `requests`, the `errors` among them, and the images that left at each exit.

    `served` are the times from admission to the answer and `stages` those in stages, of requests of normal
    priority.
    """

    version: str
    requests: int = 0
    errors: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    served: Times = field(default_factory=Times)
    stages: Times = field(default_factory=Times)

    def exit_shares(self, exits: int) -> list[float]:
        """The share of images that left at each of `exits` exits; zeros without images."""
        total = max(1, sum(self.exits.values()))
        return [self.exits[exit_] / total for exit_ in range(1, exits + 1)]
