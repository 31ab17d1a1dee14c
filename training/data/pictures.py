"""Picture files to pixels, by the same rule as the server: what is learnt is what will be seen.

The server's rule stands in serving/images.py, which training may not import; a test holds the two
to the same pixels.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
# A JPEG decoded at a reduced scale stays this many times larger than the result.
RESERVE = 2
REDUCING_GAP = 3.0
PORTION = 64
MANY = 1000


def read_picture(path: Path, side: int) -> NDArray[np.uint8]:
    """Decode a picture to uint8 [side, side, 3] RGB: shorter side to `side`, then the centre.

    EXIF orientation is applied, transparency is laid on white, and a picture that has the size
    already is not resampled. Raises DataError naming the file if it cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO"):
                scale = max(side / image.width, side / image.height)
                width, height = (math.ceil(RESERVE * scale * length) for length in image.size)
                image.draft(None, (width, height))
            image.load()
            upright = _to_eight_bit_colour(ImageOps.exif_transpose(image))
        return np.asarray(_on_white(_centre(upright, side)))
    except Exception as error:
        # Pillow's decoders raise a dozen types on damaged files (SyntaxError, struct.error …).
        raise DataError(f"{path} cannot be read as a picture: {_reason(error)}.") from error


def read_pictures(paths: Sequence[Path], side: int, what: str) -> NDArray[np.uint8]:
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


def _to_eight_bit_colour(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        # Pillow's own conversion clips at 255 instead of scaling.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _centre(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    # Scaling the part that stays equals scaling the whole and cutting.
    scale = max(side / image.width, side / image.height)
    width, height = min(side / scale, image.width), min(side / scale, image.height)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize(
        (side, side),
        Image.Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
        reducing_gap=REDUCING_GAP,
    )


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is damaged, or no JPEG, PNG, WebP, BMP or GIF file"
