"""Memory that was freed, and the system that should have it."""

from __future__ import annotations

import contextlib
import ctypes
import sys


def give_memory_back() -> None:
    """Have the allocator return its free pages to the system.

    glibc keeps in each thread's pool what large allocations leave there, and every swap is one. Takes
    milliseconds, without the GIL; does nothing elsewhere.
    """
    if sys.platform == "linux":
        # Other C libraries have no such function, and no need of it.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
