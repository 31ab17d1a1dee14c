"""Files of a run: each is whole or not there, and one process at a time writes them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from training.errors import BusyError, WriteError

LOCK = "lock"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name to write to, and puts that file in the place of `path` once it is on the disk.

    If writing fails the half-written file is removed and `path` stays as it was; a full disk raises
    WriteError. A kill leaves at most the half-written file, which the next writer replaces.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError | SafetensorError):
            reason = error.strerror if isinstance(error, OSError) else error
            raise WriteError(
                f"{path} cannot be written ({reason}); what stood there before is kept."
            ) from error
        raise


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Makes `directory` and keeps every other process out of it for as long as this one lives.

    The kernel gives the lock back when its holder dies, however it dies. Raises BusyError if another
    process has it.
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
        os.close(file)  # its last holder removed it after it was opened here
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


def _sync(directory: Path) -> None:
    """Make the last renaming in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
