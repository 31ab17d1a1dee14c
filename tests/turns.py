"""Several pytest processes side by side (pytest-xdist): what they share, and when one must be alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Holds back until no process of this checkout is in an `alone` turn, and with `alone` until none is
    in any. Who waits to be alone keeps others from starting, and so does not wait for ever."""
    # The locks of the kernel go with their holder, however it dies; what they are on does not matter.
    door, room = (os.open(place, os.O_RDONLY) for place in (__file__, Path(__file__).parent))
    try:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
    finally:
        os.close(room)
        os.close(door)


@contextmanager
def made_once(place: Path) -> Iterator[bool]:
    """Whether this process is the first to come to directory `place`, and so has to make it; the others
    wait until it has. If it fails, the next one is the first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not place.exists()
