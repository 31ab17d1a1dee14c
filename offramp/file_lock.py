"""Locks on files, held until the descriptor is closed or its process ends."""

from __future__ import annotations

try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int, *, wait: bool) -> None:
    """Lock the file or directory that `descriptor` has open.

    Without `wait`, raises BlockingIOError if another process holds the lock. On Windows this does nothing:
    two processes are not kept apart there.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
