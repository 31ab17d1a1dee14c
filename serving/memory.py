"""Returning freed memory to the system, and fewer garbage collections."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# glibc's parameter for the size from which a block gets a mapping of its own.
M_MMAP_THRESHOLD = -3
# Request bodies and decoded photos are larger, features mostly smaller.
LARGE_BLOCK_BYTES = 1 << 20
# Allocations before a garbage collection. Python's default of 700 is about ten requests.
GC_THRESHOLD = 20_000


def fix_mmap_threshold() -> None:
    """Have the allocator return every large block when it is freed. Call this before threads start.

    By default, glibc raises this threshold from 128 KiB up to 32 MiB as large blocks are freed, and keeps
    blocks below it in pools per thread. Photos fragment those pools, and the server's memory grows for
    hours.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def freeze_gc() -> None:
    """Exclude all current objects from garbage collection, and collect less often.

    A collection visits every object, most of them from libraries, and requests leave no reference cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


def release_memory() -> None:
    """Collect garbage and return free pages to the system; for after a model was swapped.

    Takes milliseconds.
    """
    gc.collect()
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc; does nothing with another C library."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)
