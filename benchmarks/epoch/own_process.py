"""A loop in a process of its own: settings of the C library that others change are its defaults there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Protocol


class Loop(Protocol):
    """What is timed."""

    def seconds(self) -> float: ...


@contextmanager
def in_own_process(build: Callable[[], Loop]) -> Iterator[Callable[[], float]]:
    """Build a loop in a new process. The callable has it run there once and returns its seconds.

    `build` is pickled. The callable raises EOFError if the process has ended.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, build))
    process.start()
    theirs.close()  # so that the end of the process ends `recv`

    def seconds() -> float:
        ours.send(None)
        return float(ours.recv())

    try:
        yield seconds
    finally:
        ours.close()
        process.join()


def _serve(connection: Connection, build: Callable[[], Loop]) -> None:
    loop = build()
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(loop.seconds())
