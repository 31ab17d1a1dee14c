"""The cache of unpacked bundles: a private directory with one folder per sha256 of a packed file.

An entry is complete or does not exist. Entries, or the whole cache, can be deleted while no bundle is
being loaded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from exports.bundle.errors import BundleError
from offramp.file_lock import lock

LOCK = ".lock"
# One name is enough, since its user holds the lock. The next user removes what a killed process left.
SCRATCH = ".unpacking"


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/offramp/bundles`, by default under `~/.cache`.

    XDG Base Directory Specification 0.8: a relative path in the variable is ignored.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "offramp" / "bundles"


def open_cache() -> Path:
    """The cache's directory, created if missing; raises BundleError if other users can write to it."""
    root = cache_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise BundleError(
            f"{root} can be written to by others, who could replace what is loaded; "
            "choose another cache with XDG_CACHE_HOME."
        )
    return root


def cached(digest: str) -> Path | None:
    """The cached bundle whose packed file has the sha256 `digest`, or None."""
    entry = cache_root() / digest
    return entry if entry.is_dir() and open_cache() else None


def add(digest: str, fill: Callable[[Path], None]) -> Path:
    """The entry `digest`; if it does not exist, `fill` writes its files into an empty directory."""
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
    """Raise BundleError if the bundle in directory `path` is in the cache, where bundles are read-only."""
    if path.resolve().parent == cache_root().resolve():
        raise BundleError(
            "A packed bundle is read-only; unzip it into a directory to change its policy."
        )


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    # The kernel releases the lock when the process ends for any reason.
    with open(root / LOCK, "wb") as file:
        lock(file.fileno(), wait=True)
        yield
