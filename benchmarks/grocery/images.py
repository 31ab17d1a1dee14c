"""The photographs that policies are chosen on, and those that they are judged on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exports.photos import label_positions, list_photos
from training.data.image_files import read_images


@dataclass(frozen=True)
class ImageFiles:
    """Files with their labels, int64 [N], and the side that they are decoded to."""

    name: str
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    side: int

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The pixels, uint8 [N, side, side, 3]."""
        read = read_images(self.files, self.side, f"reading {self.name}")
        if read.failures:
            raise next(iter(read.failures.values()))
        return read.pixels


def read_folder(directory: Path, labels: Sequence[str], side: int) -> ImageFiles:
    """The images in the subfolders of `directory`, which are named after classes."""
    folder = list_photos(directory)
    positions = label_positions(folder, labels)
    if positions is None:
        raise SystemExit(f"{directory} has no subfolders with the names of classes")
    return ImageFiles(directory.name, folder.files, positions, side)


def link_by_class(
    images: ImageFiles, chosen: NDArray[np.int64], labels: Sequence[str], folder: Path
) -> None:
    """Make `folder` anew, with a subfolder of links to the files at the positions `chosen` for each class."""
    shutil.rmtree(folder, ignore_errors=True)
    for position in chosen.tolist():
        place = folder / labels[images.labels[position]]
        place.mkdir(parents=True, exist_ok=True)
        file = images.files[position]
        (place / f"{position}{file.suffix}").symlink_to(file.absolute())


def random_halves(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to choose policies on and positions to judge them on, each half of 0..count-1, ascending."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])
