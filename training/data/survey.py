"""What a folder of pictures holds, found out without decoding them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

from PIL import Image

from training.data.folder import list_pictures, share_to_test
from training.errors import DataError

# Headers read to learn the pictures' sizes.
SAMPLE = 1000


@dataclass(frozen=True)
class Survey:
    """Training pictures of each class, and the median of the shorter sides, in pixels."""

    counts: dict[str, int]
    side: int


def survey(directory: Path) -> Survey:
    """Look at the pictures of `directory`, at the sizes of 1000 of them at most.

    Raises DataError as `load_folder` does.
    """
    train, test = list_pictures(directory)
    counts = {
        name: len(pictures) - (share_to_test(len(pictures)) if test is None else 0)
        for name, pictures in train.items()
    }
    paths = [path for pictures in train.values() for path in pictures]
    some = paths[:: -(-len(paths) // SAMPLE)]
    return Survey(counts, median_low(_shorter_side(path) for path in some))


def _shorter_side(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except Exception as error:
        # Pillow raises a dozen types on damaged files (SyntaxError, struct.error …).
        raise DataError(f"{path} cannot be read as a picture.") from error
