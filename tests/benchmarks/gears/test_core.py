"""The share of a core that other processes leave, and the CPU time of a process by thread."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from benchmarks.gears import core
from benchmarks.gears.core import MIN_SHARE, Core
from benchmarks.harness.processes import core_cpu, cpu, thread_cpu


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[float, float, float]]], Core]:
    """A core with samples of (time, CPU seconds of everything, of the server)."""

    def watched(values: list[tuple[float, float, float]]) -> Core:
        rows = iter(values)
        now = [0.0, 0.0, 0.0]

        def following() -> float:
            now[:] = next(rows)
            return now[0]

        monkeypatch.setattr(core, "time", SimpleNamespace(time=following))
        monkeypatch.setattr(core, "core_cpu", lambda cores: now[1])
        monkeypatch.setattr(core, "cpu", lambda pid: now[2])
        found = Core(1, [0])
        for _ in values[1:]:
            found.sample()
        return found

    return watched


def test_what_others_took_is_not_the_servers(
    samples: Callable[[list[tuple[float, float, float]]], Core],
) -> None:
    """In the first second others take nothing, in the next two they take a quarter of the core."""
    found = samples([(10.0, 5.0, 1.0), (11.0, 5.9, 1.9), (13.0, 7.9, 3.4)])
    assert found.share(10.0, 11.0) == 1.0
    assert found.share(11.0, 13.0) == pytest.approx(0.75)
    assert found.share(11.0, 12.0) == pytest.approx(0.75)
    assert found.used_s(11.0, 12.0) == pytest.approx(0.75)


def test_a_share_is_never_nothing(
    samples: Callable[[list[tuple[float, float, float]]], Core],
) -> None:
    found = samples([(0.0, 0.0, 0.0), (1.0, 1.2, 0.0)])
    assert found.share(0.0, 1.0) == MIN_SHARE


def test_threads_of_a_process_add_up_to_its_time() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    found = thread_cpu(os.getpid())
    ended.set()
    thread.join()
    assert {os.getpid(), thread.native_id} <= found.keys()
    assert sum(found.values()) <= cpu(os.getpid()) + 0.1


def test_the_time_of_all_cores_is_at_least_that_of_one() -> None:
    one = core_cpu([min(os.sched_getaffinity(0))])
    assert 0 < one <= core_cpu([])
    began = time.process_time()
    while time.process_time() - began < 0.03:
        pass
    assert core_cpu([]) > one
