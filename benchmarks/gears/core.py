"""What other processes leave of the server's core while it is measured."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.harness.processes import core_cpu, cpu

SAMPLE_S = 0.1
MIN_SHARE = 0.05


class Core:
    """How busy the server's cores were, and the server with them: samples of (time, all, the server)."""

    def __init__(self, pid: int, cores: Sequence[int]) -> None:
        self._pid, self._cores = pid, cores
        self._samples: list[tuple[float, float, float]] = []
        self.sample()

    @property
    def began(self) -> float:
        """The first sample's `time.time()`."""
        return self._samples[0][0]

    @property
    def ended(self) -> float:
        """The last sample's `time.time()`."""
        return self._samples[-1][0]

    def sample(self) -> None:
        """Take a sample now."""
        self._samples.append((time.time(), core_cpu(self._cores), cpu(self._pid)))

    def used_s(self, begin: float, end: float) -> float:
        """CPU seconds of the server from `begin` to `end`, both `time.time()`."""
        times, _, server = np.array(self._samples).T
        used = np.interp([begin, end], times, server)
        return float(used[1] - used[0])

    def share(self, begin: float, end: float) -> float:
        """The share of the cores that other processes left from `begin` to `end`, both `time.time()`."""
        times, everything, server = np.array(self._samples).T
        others = np.interp([begin, end], times, everything - server)
        cores = len(self._cores) or os.cpu_count() or 1
        taken = float(others[1] - others[0]) / (cores * max(end - begin, SAMPLE_S))
        return min(max(1 - taken, MIN_SHARE), 1.0)


@contextlib.contextmanager
def watched_core(pid: int, cores: Sequence[int]) -> Iterator[Core]:
    """Samples `cores` and the process `pid` within the block."""
    core, ended = Core(pid, cores), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            core.sample()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield core
    finally:
        ended.set()
        thread.join()
        core.sample()
