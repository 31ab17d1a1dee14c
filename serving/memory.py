"""Returning freed memory to the system, and fewer garbage collections."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# glibc's parameter for the size from which a block is a mapping of its own.
M_MMAP_THRESHOLD = -3
# Bodies and decoded photos are larger, most features between stages are smaller.
LARGE_BLOCK_BYTES = 1 << 20
# Net allocations before a collection of the youngest generation. Python's default, 700, is ten requests.
GC_THRESHOLD = 20_000


def fix_mmap_threshold() -> None:
    """Have glibc return every large block when it is freed; to be called before threads start.

    By default glibc raises its threshold, 128 KiB at first, up to 32 MiB as large blocks are freed. Blocks
    below it are kept in a pool per thread, which photos fragment: a server's memory then grows for hours.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def freeze_gc() -> None:
    """Exclude all current objects from garbage collection, and collect less often.

    A collection visits every object, and most belong to libraries and stay until the end. Requests leave no
    cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


def release_memory() -> None:
    """Collect garbage, and have the allocator return its free pages to the system.

    For after a swap of models, which frees much at once. Takes milliseconds.
    """
    gc.collect()
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc; with another C library this does nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)
