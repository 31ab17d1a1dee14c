"""Files and directories that are whole or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offramp.errors import WriteError


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
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WriteError(
            f"{path} cannot be written ({error.strerror or error}); "
            "what stood there before is kept."
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path` in one step. Raises WriteError; `path` stays as it was then."""
    with replacing(path) as part:
        part.write_bytes(content)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Gives an empty directory beside `target` to fill, which gets the name `target` at the end.

    On an error it is removed. A killed process leaves `.NAME.part`, never `target`; the next call for
    `target` clears it. Raises WriteError if `target` exists or another process is writing it.
    """
    if os.path.lexists(target):
        raise WriteError(f"{target} exists already; choose another name or move it away.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    lock = _locked(part, target)
    try:
        for left in part.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield part
        for file in part.iterdir():
            _sync(file)
        _sync(part)
        if os.path.lexists(target):
            raise WriteError(f"{target} was created by another process; it is left alone.")
        part.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _locked(part: Path, target: Path) -> int:
    """A descriptor of the directory `part`, locked for as long as this process lives."""
    while True:
        part.mkdir(exist_ok=True)
        descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if part.exists() and os.path.samestat(os.fstat(descriptor), part.stat()):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise WriteError(f"another process is writing {target} right now.") from error
        os.close(descriptor)  # its last holder renamed it after it was opened here


def _sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
