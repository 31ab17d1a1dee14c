"""Locks on files: one process at a time writes the files of a run, or fills a view."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offramp.file_lock import lock
from training.errors import BusyError

LOCK = "lock"


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Create `directory` and hold its lock inside the block.

    Raises BusyError if another process holds it.
    """
    try:
        file = _lock(directory / LOCK, wait=False)
    except BlockingIOError as error:
        raise BusyError(f"another process is training in {directory} right now.") from error
    with _held(file, directory / LOCK):
        yield


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock `path`, and hold it inside the block."""
    with _held(_lock(path, wait=True), path):
        yield


def _lock(path: Path, *, wait: bool) -> int:
    """A descriptor of the file `path`, locked until it is closed or its process ends."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            lock(file, wait=wait)
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
