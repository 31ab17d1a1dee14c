"""Memory that was freed, and the system that should have it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys


def set_aside() -> None:
    """Have the collector of cycles leave alone what there is now, which stays until the end.

    A collection looks at every object, and most of them are libraries'.
    """
    gc.collect()
    gc.freeze()


def give_memory_back() -> None:
    """Free what nobody uses any more, and have the allocator return its free pages to the system.

    Requests are small cycles of objects that hold on to the engine they went to, until the collector
    comes by; glibc keeps in each thread's pool what large allocations leave there. Takes milliseconds.
    """
    gc.collect()
    if sys.platform == "linux":
        # Other C libraries have no such function, and no need of it.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
