"""The command `offramp` as a process that starts quickly and can be killed.

It is forked from a server that has already loaded torch; starting takes a tenth of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from offramp.cli import main

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        "training.run",
        "torch._dynamo",  # imported with the first optimiser
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "sklearn.datasets",
    ]
)


class Offramp:
    """`offramp` with `arguments` in `cwd`, started immediately.

    `first` is called in the new process before the command; it must be importable.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        first: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = cwd / f"output-{time.monotonic_ns()}"
        self._process = context.Process(
            target=_offramp, args=(arguments, cwd, self._log, first, dict(environment or {}))
        )
        self._process.start()

    @property
    def output(self) -> str:
        """What it printed, stdout and stderr together."""
        return self._log.read_text("utf-8") if self._log.exists() else ""

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def wait(self, seconds: float = 300) -> int:
        """Its exit code; negative for the signal that ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still running: {self.output}"
        return self._process.exitcode

    def wait_for(self, path: Path) -> None:
        """Wait until `path` exists."""
        deadline = time.monotonic() + 300
        while not path.exists():
            assert self._process.is_alive(), self.output
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def send(self, number: int) -> None:
        """Send it signal `number`, unless it has ended."""
        if self._process.is_alive():
            os.kill(self._process.pid or 0, number)

    def kill(self) -> int:
        """SIGKILL; its exit code."""
        self.send(signal.SIGKILL)
        return self.wait()


def two(
    cwd: Path, arguments: Sequence[str], first: Mapping[int, Callable[[], None]]
) -> list[Offramp]:
    """Start `offramp` with `arguments` as two processes on the CPU, connected as by torchrun.

    `first` maps ranks to functions called in that process before the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        Offramp(
            *(*arguments, "--device", "cpu"),
            cwd=cwd,
            first=first.get(rank),
            environment={**common, "RANK": str(rank)},
        )
        for rank in range(2)
    ]


def _offramp(
    arguments: tuple[str, ...],
    cwd: Path,
    log: Path,
    first: Callable[[], None] | None,
    environment: dict[str, str],
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(cwd)
    os.environ.update(environment)
    # SIGINT is ignored if the tests were started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["offramp", *arguments]
    if first is not None:
        first()
    main()
