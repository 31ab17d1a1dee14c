"""Picture files to pixels, by the same rule as the server: what is learnt is what will be seen."""

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
# Of one picture: one's own are trusted with more than those of a request.
MAX_PIXELS = 500_000_000
PORTION = 64
MANY = 1000


def read_picture(path: Path, side: int) -> Pixels:
    """Decode a picture to uint8 [side, side, 3] RGB: shorter side to `side`, then the centre.

    Raises DataError naming the file if it cannot be read.
    """
    try:
        return decode(path.read_bytes(), ImageSpec(side, side), MAX_PIXELS)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ImageError as error:
        raise DataError(f"{path} cannot be read as a picture: {error}") from error


def read_pictures(paths: Sequence[Path], side: int, what: str) -> Pixels:
    """Decode all `paths` as `read_picture` does, on all cores, to uint8 [N, side, side, 3].

    A terminal sees a bar named `what` if there are many. Raises the DataError of the first picture
    that cannot be read.
    """
    images = np.empty((len(paths), side, side, 3), np.uint8)

    def read_portion(start: int) -> int:
        portion = paths[start : start + PORTION]
        for position, path in enumerate(portion, start):
            images[position] = read_picture(path, side)
        return len(portion)

    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=len(paths) < MANY or not sys.stderr.isatty(),
    )
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = bar.add_task("", total=len(paths))
        for done in pool.map(read_portion, range(0, len(paths), PORTION)):
            bar.advance(task, done)
    return images
