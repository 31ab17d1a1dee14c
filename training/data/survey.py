"""Number, size and resolution of the images in an image folder; few of them are decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

from PIL import Image

from training.data.image_files import read_image
from training.data.image_folder import list_images
from training.data.resolution import MAX_SIDE, detail_ratios, effective_side
from training.errors import DataError
from training.recipes.auto import MAX_SMALL_SIDE

# Images whose header is read, and those that are decoded to estimate their resolution.
MAX_SAMPLES = 1000
MAX_DECODED = 40


@dataclass(frozen=True)
class FolderSurvey:
    """Training images of each class, the median of the shorter sides in pixels, and the side that the
    images had before they were enlarged, None if they were not."""

    counts: dict[str, int]
    side: int
    enlarged_from: int | None = None


def survey_folder(directory: Path) -> FolderSurvey:
    """Count the images of `directory`, sample the sizes of at most 1000 and the detail of at most 40.

    Images that cannot be read are passed over. Raises DataError as `list_images` does, and if no sampled
    image can be read.
    """
    listed = list_images(directory)
    counts = {name: len(images) for name, images in listed.train.items()}
    paths = [path for images in listed.train.values() for path in images]
    sides = {path: side for path in _sample(paths, MAX_SAMPLES) if (side := _shorter_side(path))}
    if not sides:
        raise DataError(f"{directory} has no image that can be read.")
    side = median_low(sides.values())
    enlarged_from = None
    if side > MAX_SMALL_SIDE:
        decoded = [_detail_ratios(path, sides[path]) for path in _sample(list(sides), MAX_DECODED)]
        enlarged_from = effective_side([ratios for ratios in decoded if ratios])
    return FolderSurvey(counts, side, enlarged_from)


def _sample(paths: list[Path], count: int) -> list[Path]:
    return paths[:: -(-len(paths) // count)]


def _shorter_side(path: Path) -> int | None:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        struct.error,
    ):  # of Pillow's, on damaged files
        return None


def _detail_ratios(path: Path, side: int) -> dict[int, float]:
    try:
        pixels = read_image(path, min(side, MAX_SIDE))
    except DataError:  # a whole header does not make a whole file
        return {}
    return detail_ratios(Image.fromarray(pixels))
