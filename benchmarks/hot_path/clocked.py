"""Runs the command `offramp` with a clock around decoding and stages, in a process of its own.

    python -P benchmarks/hot_path/clocked.py CLOCKS serve ...

The file CLOCKS then has the CPU seconds that worker threads have spent in decoding and in onnxruntime so far,
as two doubles, and the numbers of files and runs: with one worker thread, what remains of the process's CPU
time is the server's own. Costs of stages are not measured but given, so that all servers choose the same
batches, of eight. Imports only what every version of the server has, so that another checkout can be
measured.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLOCKS = struct.Struct("dddd")
# Seconds of every stage for a batch: per image, eight are within 5 % of the cheapest.
BATCH_S, IMAGE_S = 2e-4, 4e-4


def read_clocks(path: Path) -> tuple[float, float, float, float]:
    """Seconds in decoding and in stages, files, and runs of stages."""
    found: tuple[float, float, float, float] = CLOCKS.unpack(path.read_bytes())
    return found


def clocked(call: Callable[..., Any], totals: mmap.mmap, at: int) -> Callable[..., Any]:
    """`call`, with its CPU seconds added to the double number `at` of `totals` and 1 to that two behind."""
    seconds, count = struct.Struct("d"), struct.Struct("d")

    def run(*arguments: Any) -> Any:
        began = time.thread_time()
        try:
            return call(*arguments)
        finally:
            spent = time.thread_time() - began
            seconds.pack_into(totals, 8 * at, seconds.unpack_from(totals, 8 * at)[0] + spent)
            number = count.unpack_from(totals, 8 * (at + 2))[0] + 1
            count.pack_into(totals, 8 * (at + 2), number)

    return run


def main() -> None:
    """Install the clocks, then run the command."""
    path = Path(sys.argv[1])
    sys.argv = ["offramp", *sys.argv[2:]]
    path.write_bytes(CLOCKS.pack(0, 0, 0, 0))
    with path.open("r+b") as file:
        totals = mmap.mmap(file.fileno(), CLOCKS.size)
    from offramp.cli import main as run_command
    from serving.inference.runners import HostRunner
    from serving.scheduling import dispatcher, execution
    from serving.scheduling.costs import BATCH_SIZES, CostTable

    def given(engine: Any) -> CostTable:
        return CostTable([{n: BATCH_S + n * IMAGE_S for n in BATCH_SIZES}] * engine.exits)

    dispatcher.measure = given
    execution.decode = clocked(execution.decode, totals, 0)  # type: ignore[assignment]
    HostRunner.run = clocked(HostRunner.run, totals, 1)  # type: ignore[method-assign]
    run_command()


if __name__ == "__main__":
    main()
