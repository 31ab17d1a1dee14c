"""A token bucket, of multiply-accumulates or of what else is limited over time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Bucket:
    """Fills at `rate` a second up to `burst`, and is full at first. Used by one thread.

    Within any t seconds at most `burst` + `rate` t are taken, less what is given back.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Both are infinite for a bucket without a limit; `clock` is in seconds."""
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._level = burst
        self._at = clock()

    @property
    def level(self) -> float:
        """What can be taken now."""
        if self.burst == math.inf:
            return math.inf
        now = self._clock()
        self._level = min(self._level + self.rate * (now - self._at), self.burst)
        self._at = now
        return self._level

    def take(self, wanted: float) -> float:
        """Take `wanted`, or what there is; returns what was taken."""
        taken = min(wanted, self.level)
        self._level -= taken
        return taken

    def give_back(self, amount: float) -> None:
        """Return some of what was taken, as far as it fits."""
        self._level = min(self.level + amount, self.burst)
