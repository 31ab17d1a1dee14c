"""Locks on files: one process at a time writes the files of a run, or fills a view."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import BusyError

LOCK = "lock"


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Create `directory` and hold its lock inside the block.

    Raises BusyError if another process holds it.
    """
    try:
        file = _lock(directory / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(f"another process is training in {directory} right now.") from error
    with _held(file, directory / LOCK):
        yield


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock `path`, and hold it inside the block."""
    with _held(_lock(path, fcntl.LOCK_EX), path):
        yield


def _lock(path: Path, operation: int) -> int:
    """A descriptor of the file `path`, locked until it is closed or its process ends."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, operation)
        except BaseException:
            os.close(file)
            raise
        if _is_at(file, path):
            return file
        os.close(file)  # its last holder removed the file after it was opened here


@contextmanager
def _held(file: int, path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
