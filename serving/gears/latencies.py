"""The latest latencies of a model, for the 99th percentile in the present gear."""

from __future__ import annotations

import numpy as np

from serving.gears.controller import MIN_ANSWERS, WINDOW_S

# Enough for a 99th percentile; of more answers in the window the latest count.
MAX_ANSWERS = 4096


class Latencies:
    """A ring of the latest answers. Used by one thread."""

    def __init__(self) -> None:
        self._ended = np.full(MAX_ANSWERS, -np.inf)
        self._seconds = np.zeros(MAX_ANSWERS)
        self._next = 0

    def add(self, now: float, seconds: float) -> None:
        """A request was answered at `now`, `seconds` after its admission."""
        self._ended[self._next] = now
        self._seconds[self._next] = seconds
        self._next = (self._next + 1) % MAX_ANSWERS

    def p99(self, now: float, since: float) -> float | None:
        """The 99th percentile in seconds of the requests that were admitted after `since` and answered in the
        last WINDOW_S before `now`; None if they are fewer than MIN_ANSWERS."""
        arrived = self._ended - self._seconds
        counted = self._seconds[(self._ended >= now - WINDOW_S) & (arrived >= since)]
        if len(counted) < MIN_ANSWERS:
            return None
        return float(np.percentile(counted, 99))
