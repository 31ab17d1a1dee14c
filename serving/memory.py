"""Memory that was freed, and the system that should have it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# glibc's name for the size from which on a block is a mapping of its own.
M_MMAP_THRESHOLD = -3
# Bodies and photos are larger, what stages hand on is mostly smaller.
LARGE_BLOCK_BYTES = 1 << 20
# Objects made and not freed before the collector looks for cycles; Python's own 700 are some ten requests.
GC_THRESHOLD = 20_000


def fix_mmap_threshold() -> None:
    """Have the allocator give back every large block when it is freed; to be called before threads start.

    glibc raises its threshold, 128 KiB at first, up to 32 MiB with every large block that is freed, and
    keeps those below it in pools, one for each of several threads, which photos then tear to pieces: a
    server's memory grows for hours. A fixed threshold ends that.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def freeze_gc() -> None:
    """Have the collector of cycles leave alone what there is now, which stays until the end, and come by
    less often: a request leaves no cycles behind.

    A collection looks at every object, and most of them are libraries'.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])


def release_memory() -> None:
    """Free what nobody uses any more, and have the allocator return its free pages to the system.

    A swap frees much at once. Takes milliseconds.
    """
    gc.collect()
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc's; where the C library is another one, nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            getattr(ctypes.CDLL("libc.so.6"), name)(*arguments)
