"""Process trees of a benchmark: members, CPU time, termination."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def tree(root: int) -> set[int]:
    """The process `root` and its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = {root}
    while True:
        below = {process for process, parent in parents.items() if parent in found} - found
        if not below:
            return found
        found |= below


def cpu(process: int) -> float:
    """CPU seconds of `process` so far, 0 if it has ended."""
    return _cpu(_stat(process))


def main_thread_cpu(process: int) -> float:
    """CPU seconds of the first thread of `process` so far, 0 if it has ended."""
    return _cpu(_stat(process, f"task/{process}/"))


def thread_cpu(process: int) -> dict[int, float]:
    """CPU seconds so far of each thread of `process`, by its id."""
    return {
        int(task.name): _cpu(_stat(process, f"task/{task.name}/"))
        for task in Path(f"/proc/{process}/task").iterdir()
    }


def core_cpu(cores: Sequence[int]) -> float:
    """CPU seconds so far of everything on `cores`, of other virtual machines as well; without `cores`, on all
    of them."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in ({f"cpu{core}" for core in cores} or {"cpu"}):
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _cpu(fields: list[str] | None) -> float:
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def alive(process: int) -> bool:
    """Whether `process` runs; one that has ended but was not waited for does not."""
    fields = _stat(process)
    return fields is not None and fields[0] != "Z"


def end(process: subprocess.Popen[bytes], within: float) -> None:
    """Send SIGTERM to `process`, and SIGKILL after `within` seconds to what is left of its tree, reparented
    children included."""
    members = tree(process.pid)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    _wait(process, members, within)
    for member in filter(alive, members):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    _wait(process, members, within)
    process.wait()


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _wait(process: subprocess.Popen[bytes], members: set[int], within: float) -> None:
    until = time.monotonic() + within
    while any(map(alive, members)) and time.monotonic() < until:
        process.poll()
        time.sleep(0.05)


def _stat(process: int, below: str = "") -> list[str] | None:
    """The fields of /proc/…/stat behind the name: state, parent, …"""
    try:
        return Path(f"/proc/{process}/{below}stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
