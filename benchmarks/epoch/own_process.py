"""A loop in a process of its own: settings of the C library that others change are its defaults there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Protocol, Self


class Loop(Protocol):
    """What is timed."""

    def seconds(self) -> float: ...


class OwnProcess(AbstractContextManager["OwnProcess"]):
    """Builds a loop in a new process and has it run there. `build` is pickled."""

    def __init__(self, build: Callable[[], Loop]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, self._theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._theirs, build))

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()  # so that the end of the process ends `recv`
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.is_alive():
            self._connection.send(False)
        self._process.join()

    def seconds(self) -> float:
        """One pass. Raises EOFError if the process has ended."""
        self._connection.send(True)
        seconds: float = self._connection.recv()
        return seconds


def _serve(connection: Connection, build: Callable[[], Loop]) -> None:
    loop = build()
    while connection.recv():
        connection.send(loop.seconds())
