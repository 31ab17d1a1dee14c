"""Image files to pixels, decoded and resized exactly as the server does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from offramp.errors import ImageError
from offramp.file_names import shown_name
from offramp.images import ImageSpec, Pixels, decode
from offramp.images.decoder import image_size
from offramp.progress import counting_bar
from training.errors import DataError

ResizeRule = Literal["center_crop", "stretch"]
# Of one image. The user's own files are trusted more than those of a request.
MAX_PIXELS = 500_000_000
CHUNK_IMAGES = 64
# From so many images on, a progress bar is shown.
MIN_PROGRESS_IMAGES = 1000


def read_image(path: Path, side: int, rule: ResizeRule = "center_crop") -> Pixels:
    """Decode an image to uint8 [side, side, 3] RGB: shorter side to `side`, then the centre; or stretched.

    Raises DataError naming the file if it cannot be read.
    """
    with _naming(path):
        return decode(path.read_bytes(), ImageSpec(side, side, rule), MAX_PIXELS)


def read_size(path: Path) -> tuple[int, int]:
    """The width and height of an image in pixels; only its header is decoded.

    Raises DataError naming the file if it cannot be read.
    """
    with _naming(path):
        return image_size(path.read_bytes(), MAX_PIXELS)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{shown_name(path)} cannot be read: {error.strerror}.") from error
    except ImageError as error:
        raise DataError(f"{shown_name(path)} cannot be read as an image: {error}") from error


@dataclass(frozen=True)
class ReadImages:
    """The images that could be read, uint8 [N, side, side, 3], their positions in the list of files, and
    the DataErrors of the other files by position."""

    pixels: Pixels
    positions: NDArray[np.int64]
    failures: dict[int, DataError]


def read_images(
    paths: Sequence[Path], side: int, label: str, rule: ResizeRule = "center_crop"
) -> ReadImages:
    """Decode all `paths` as `read_image` does, on all cores. Files that cannot be read are passed over.

    For many images a terminal shows a progress bar with `label`.
    """
    images = np.empty((len(paths), side, side, 3), np.uint8)
    failures: dict[int, DataError] = {}

    def read_chunk(start: int) -> int:
        chunk = paths[start : start + CHUNK_IMAGES]
        for position, path in enumerate(chunk, start):
            try:
                images[position] = read_image(path, side, rule)
            except DataError as error:
                failures[position] = error
        return len(chunk)

    bar = counting_bar(label, shown=len(paths) >= MIN_PROGRESS_IMAGES)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = bar.add_task("", total=len(paths))
        for done in pool.map(read_chunk, range(0, len(paths), CHUNK_IMAGES)):
            bar.advance(task, done)
    readable = np.array([n for n in range(len(paths)) if n not in failures], np.int64)
    return ReadImages(
        images[readable] if failures else images, readable, dict(sorted(failures.items()))
    )
