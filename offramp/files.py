"""Writing files and directories completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offramp.errors import WriteError
from offramp.file_lock import lock


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; at the end it is synced to disk and renamed to `path`.

    If writing fails, the temporary file is removed and `path` is unchanged. Raises WriteError for an
    OSError such as a full disk. A killed process leaves at most the temporary file, which the next
    writer replaces.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):  # a disk that was remounted read-only
            part.unlink(missing_ok=True)
        raise WriteError(
            f"{path} cannot be written ({error.strerror or error}); its previous content is kept."
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_target(path: Path) -> None:
    """Raise WriteError if a file cannot stand at `path`. Call it before work whose result goes there."""
    if not path.parent.is_dir():
        raise WriteError(f"{path} cannot be written: there is no directory {path.parent}.")
    if path.is_dir():
        raise WriteError(f"{path} cannot be written: it is a directory.")


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically. Raises WriteError, and then leaves `path` unchanged."""
    with replacing(path) as part:
        part.write_bytes(content)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yields an empty directory beside `target` to fill; at the end it is renamed to `target`.

    On an error the directory is removed. A killed process leaves `.NAME.part`, which the next call for
    `target` empties. Raises WriteError if `target` exists or another process is writing it.
    """
    _refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(target) as part:
        yield part
        for file in part.iterdir():
            _sync(file)
        _sync(part)
        _refuse_created(target)
        part.rename(target)
        _sync(target.parent)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yields a path to write to; at the end it is synced to disk and renamed to `target`.

    On an error the file is removed. A killed process leaves `.NAME.part`, a directory, which the next call
    for `target` empties. Raises WriteError if `target` exists or another process is writing it.
    """
    _refuse_existing(target)
    with _scratch(target) as scratch:
        part = scratch / target.name
        yield part
        _sync(part)
        _refuse_created(target)
        part.rename(target)
        _sync(target.parent)
        scratch.rmdir()


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise WriteError(f"{target} exists already; choose another name or move it away.")


def _refuse_created(target: Path) -> None:
    if os.path.lexists(target):
        raise WriteError(f"{target} was created by another process; it is left alone.")


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Yields the empty directory `.NAME.part` beside `target`, locked; it is removed on an error."""
    part = target.with_name(f".{target.name}.part")
    held = _create_and_lock(part, target)
    try:
        for stale in part.iterdir():
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(held)


def _create_and_lock(part: Path, target: Path) -> int:
    """Create the directory `part` if it is missing, and lock it; the lock is held until the returned
    descriptor is closed."""
    while True:
        part.mkdir(exist_ok=True)
        descriptor = os.open(part, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            lock(descriptor, wait=False)
            if part.exists() and os.path.samestat(os.fstat(descriptor), part.stat()):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise WriteError(f"another process is writing {target} right now.") from error
        os.close(descriptor)  # the previous holder renamed the directory after it was opened here


def lock_file(descriptor: int, path: Path) -> None:
    """Lock the open file `path` until `descriptor` is closed; raises WriteError if another process has
    locked it."""
    try:
        lock(descriptor, wait=False)
    except BlockingIOError as error:
        raise WriteError(f"another process is writing {path} right now.") from error


def _sync(path: Path) -> None:
    """Flush a file, or the renames in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
