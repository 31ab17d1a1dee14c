"""A lock: one process at a time writes the files of a run."""

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

    The kernel releases the lock when its holder dies. Raises BusyError if another process holds it.
    """
    path = directory / LOCK
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise BusyError(f"another process is training in {directory} right now.") from error
        if _is_at(file, path):
            break
        os.close(file)  # its last holder removed the file after it was opened here
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
