"""Number and size of the images in an image folder, without decoding them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

from PIL import Image

from training.data.image_folder import list_images, test_share
from training.errors import DataError

# Images whose header is read.
MAX_SAMPLES = 1000


@dataclass(frozen=True)
class FolderSurvey:
    """Training images of each class, and the median of the shorter sides in pixels."""

    counts: dict[str, int]
    side: int


def survey_folder(directory: Path) -> FolderSurvey:
    """Count the images of `directory` and sample the sizes of at most 1000 of them.

    Raises DataError as `load_image_folder` does.
    """
    train, test = list_images(directory)
    counts = {
        name: len(images) - (test_share(len(images)) if test is None else 0)
        for name, images in train.items()
    }
    paths = [path for images in train.values() for path in images]
    sample = paths[:: -(-len(paths) // MAX_SAMPLES)]
    return FolderSurvey(counts, median_low(_shorter_side(path) for path in sample))


def _shorter_side(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except Exception as error:
        # Pillow raises many types on damaged files (SyntaxError, struct.error …).
        raise DataError(f"{path} cannot be read as an image.") from error
