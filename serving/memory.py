"""Memory that was freed, and the system that should have it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# glibc's name for the size from which on a block is a mapping of its own.
M_MMAP_THRESHOLD = -3
# Bodies and photos are larger, what stages hand on is mostly smaller.
LARGE = 1 << 20
# Objects made and not freed before the collector looks for cycles; Python's own 700 are some ten requests.
YOUNG = 20_000


def keep_large_blocks_apart() -> None:
    """Have the allocator give back every large block when it is freed; to be called before threads start.

    glibc raises its threshold, 128 KiB at first, up to 32 MiB with every large block that is freed, and
    keeps those below it in pools, one for each of several threads, which photos then tear to pieces: a
    server's memory grows for hours. A fixed threshold ends that.
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, LARGE)


def set_aside() -> None:
    """Have the collector of cycles leave alone what there is now, which stays until the end, and come by
    less often: a request leaves no cycles behind.

    A collection looks at every object, and most of them are libraries'.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def give_memory_back() -> None:
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
