"""Where packed bundles lie unpacked: a private directory, one folder per sha256 of a packed file.

An entry appears whole or not at all. Deleting entries, or all of it, is safe while nothing loads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from exports.bundle.errors import BundleError

LOCK = ".lock"
# One name is enough, since whoever uses it holds the lock; what a killed process left under it is
# removed by the next.
SCRATCH = ".unpacking"


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/offramp/bundles`, by default under `~/.cache`.

    XDG Base Directory Specification 0.8: a relative path in the variable is ignored.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "offramp" / "bundles"


def open_cache() -> Path:
    """The cache's directory, made if need be; raises BundleError if others could write to it."""
    root = cache_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise BundleError(
            f"{root} can be written to by others, who could change what is loaded; "
            "choose another cache with XDG_CACHE_HOME."
        )
    return root


def cached(digest: str) -> Path | None:
    """The unpacked bundle whose packed file has the sha256 `digest`, if there is one."""
    entry = cache_root() / digest
    return entry if entry.is_dir() and open_cache() else None


def add(digest: str, fill: Callable[[Path], None]) -> Path:
    """The entry `digest`, for which `fill` writes into an empty directory unless it is there."""
    root = open_cache()
    with _lock(root):
        entry = root / digest
        if entry.is_dir():
            return entry
        scratch = root / SCRATCH
        if scratch.exists():
            shutil.rmtree(scratch)
        scratch.mkdir(mode=0o700)
        try:
            fill(scratch)
            os.rename(scratch, entry)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return entry


def refuse_cached(path: Path) -> None:
    """Raise BundleError if the bundle in directory `path` is a packed one, which is read-only."""
    if path.resolve().parent == cache_root().resolve():
        raise BundleError(
            "A packed bundle is read-only; unzip it into a directory to change its policy."
        )


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    # The kernel lets go of it when the process ends, however it ends.
    with open(root / LOCK, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
