"""A directory that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exports.bundle.errors import ExportError


@contextmanager
def whole_or_absent(target: Path) -> Iterator[Path]:
    """Gives an empty directory beside `target` to fill, which takes the name `target` at the end.

    On an error it is removed. A killed process leaves `.NAME.part`, never `target`; the next export of
    that name clears it away. Raises ExportError if `target` exists or another process is writing it.
    """
    if os.path.lexists(target):
        raise ExportError(f"{target} exists already; choose another name or move it away.")
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
            raise ExportError(f"{target} has come to exist meanwhile; it is left alone.")
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
            raise ExportError(f"another process is writing {target} right now.") from error
        os.close(descriptor)  # its last holder gave it its final name after it was opened here


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
