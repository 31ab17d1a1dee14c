"""Image files to pixels, decoded and resized exactly as the server does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from offramp.errors import ImageError
from offramp.images import ImageSpec, Pixels, decode
from training.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# Of one image. The user's own files are trusted more than those of a request.
MAX_PIXELS = 500_000_000
CHUNK_IMAGES = 64
# From so many images on, a progress bar is shown.
MIN_PROGRESS_IMAGES = 1000


def read_image(path: Path, side: int) -> Pixels:
    """Decode an image to uint8 [side, side, 3] RGB: shorter side to `side`, then the centre.

    Raises DataError naming the file if it cannot be read.
    """
    try:
        return decode(path.read_bytes(), ImageSpec(side, side), MAX_PIXELS)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ImageError as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def read_images(paths: Sequence[Path], side: int, label: str) -> Pixels:
    """Decode all `paths` as `read_image` does, on all cores, to uint8 [N, side, side, 3].

    For many images a terminal shows a progress bar with `label`. Raises the DataError of the first
    image that cannot be read.
    """
    images = np.empty((len(paths), side, side, 3), np.uint8)

    def read_chunk(start: int) -> int:
        chunk = paths[start : start + CHUNK_IMAGES]
        for position, path in enumerate(chunk, start):
            images[position] = read_image(path, side)
        return len(chunk)

    bar = Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=len(paths) < MIN_PROGRESS_IMAGES or not sys.stderr.isatty(),
    )
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = bar.add_task("", total=len(paths))
        for done in pool.map(read_chunk, range(0, len(paths), CHUNK_IMAGES)):
            bar.advance(task, done)
    return images
