"""Number, size and resolution of the images in an image folder; few of them are decoded.

Enlarged images have files of 256 pixels that hold no more than 32 ever did. An image is shrunk to m pixels
and enlarged again; e(m) is the root mean square of the difference. In photographs detail goes on at every
scale: e(m) is 0.57 to 0.75 of e(m / 2). Beyond the size that an image had before it was enlarged there is no
detail left, and the ratio falls: to 0.25 and less for images of 32 pixels enlarged to between 100 and 256
by any usual method and saved as JPEG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, median_low

import numpy as np
from PIL import Image

from offramp.file_names import shown_name
from training.data.image_files import read_image, read_size
from training.data.image_folder import list_images
from training.errors import DataError
from training.recipes.auto import MAX_SMALL_SIDE

# Images whose header is read, and those that are decoded to estimate their resolution.
MAX_SAMPLES = 1000
MAX_DECODED = 40
# The sides that are looked for, smallest first, each with the ratio up to which no detail lies beyond.
LIMITS = ((32, 0.3), (48, 0.4), (64, 0.4))
# Larger images are shrunk first, which keeps every side above.
MAX_SIDE = 256
# Below this error in grey levels an image is as good as blank and says nothing.
MIN_ERROR = 1.0
# Nearest neighbours and interpolation, undone by the filter that loses least of each.
_FILTERS = (
    (Image.Resampling.BOX, Image.Resampling.NEAREST),
    (Image.Resampling.BOX, Image.Resampling.BICUBIC),
    (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
    (Image.Resampling.LANCZOS, Image.Resampling.LANCZOS),
)


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
    return FolderSurvey(counts, *survey_files(paths, directory))


def survey_files(paths: list[Path], directory: Path) -> tuple[int, int | None]:
    """The `side` and `enlarged_from` of FolderSurvey, of the images in the files `paths` of `directory`.

    Raises DataError if no sampled image can be read.
    """
    sides: dict[Path, int] = {}
    failures: list[DataError] = []
    for path in _sample(paths, MAX_SAMPLES):
        try:
            sides[path] = min(read_size(path))
        except DataError as error:
            failures.append(error)
    if not sides:
        raise DataError(f"{shown_name(directory)} has no image that can be read: {failures[0]}")
    side = median_low(sides.values())
    enlarged_from = None
    if side > MAX_SMALL_SIDE:
        decoded = [_detail_ratios(path, sides[path]) for path in _sample(list(sides), MAX_DECODED)]
        enlarged_from = effective_side([ratios for ratios in decoded if ratios])
    return side, enlarged_from


def _sample(paths: list[Path], count: int) -> list[Path]:
    return paths[:: -(-len(paths) // count)]


def _detail_ratios(path: Path, side: int) -> dict[int, float]:
    try:
        pixels = read_image(path, min(side, MAX_SIDE))
    except DataError:  # a whole header does not make a whole file
        return {}
    return detail_ratios(Image.fromarray(pixels))


def effective_side(ratios: Sequence[dict[int, float]]) -> int | None:
    """The side, one of `LIMITS`, that most images had before they were enlarged; None if they were not.

    `ratios` are those of `detail_ratios` of a sample of images.
    """
    for side, limit in LIMITS:
        found = [ratio[side] for ratio in ratios if side in ratio]
        if 2 * len(found) > len(ratios) and median(found) <= limit:
            return side
    return None


def detail_ratios(image: Image.Image) -> dict[int, float]:
    """e(m) / e(m / 2) for every side m of `LIMITS` below the shorter side of `image`.

    Sides at which the image shows nothing are left out.
    """
    grey = image.convert("L")
    shorter = min(grey.size)
    if shorter > MAX_SIDE:
        grey = grey.resize(_scaled(grey.size, MAX_SIDE / shorter), Image.Resampling.BOX)
        shorter = MAX_SIDE
    pixels = grey.convert("F")
    ratios = {}
    for side, _ in LIMITS:
        if side < shorter:
            coarse = _error(pixels, side / shorter / 2)
            if coarse >= MIN_ERROR:
                ratios[side] = _error(pixels, side / shorter) / coarse
    return ratios


def _error(image: Image.Image, scale: float) -> float:
    """The root mean square of what is lost when `image` is shrunk by `scale` and enlarged again."""
    pixels, small = np.asarray(image), _scaled(image.size, scale)
    return min(
        float(np.sqrt(np.mean((pixels - image.resize(small, down).resize(image.size, up)) ** 2)))
        for down, up in _FILTERS
    )


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    width, height = size
    return max(1, round(width * scale)), max(1, round(height * scale))
