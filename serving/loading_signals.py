"""Signals that arrive before the server handles them itself, while models load."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def loading_signals() -> Iterator[None]:
    """In the block, SIGTERM ends the process with exit code 0, and SIGHUP does nothing: it asks to read again
    what is being read anyway. Both would kill the process otherwise.

    For the main thread. Handlers that the block sets itself take precedence.
    """
    handlers = {signal.SIGTERM: _end}
    # Where there is no such signal there is nothing to handle.
    if hangup := getattr(signal, "SIGHUP", None):
        # Not SIG_IGN, which processes started in the block would inherit.
        handlers[hangup] = _ignore
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass
