"""The images that a front's temperatures, thresholds and certificate come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exports.bundle.errors import ExportError
from exports.bundle.manifest import MAX_TABLE_LOGITS
from exports.front.large import Large
from exports.photos import (
    PhotoFolder,
    Photos,
    label_positions,
    list_photos,
    list_tree,
    read_photos,
)
from training.data.answers import Answers
from training.data.image_files import read_images
from training.data.load import split_held_out
from training.planning.student import StudentChoice

# Of a student and the network behind it, at most.
MAX_EXITS = 8


@dataclass(frozen=True)
class CalibrationImages:
    """Images that the front was not trained on, with their labels where these are known. `name` is of the
    directory."""

    name: str
    photos: Photos


def held_out_images(
    large: Large, student: StudentChoice, images: PhotoFolder, answers: Answers
) -> CalibrationImages:
    """The images that the training of `student` held out, of `images`, which `answers` are of.

    Raises DataError if one cannot be read.
    """
    _, held_out = split_held_out(student.recipe.data, np.array(answers.answers, np.int64))
    read = read_images(
        answers.paths(held_out.tolist()), large.side, "reading held-out images", large.rule
    )
    if read.failures:
        raise next(iter(read.failures.values()))
    positions = label_positions(images, answers.classes)
    labels = None
    if positions is not None:
        by_image = {
            file.relative_to(images.directory).as_posix(): label
            for file, label in zip(images.files, positions.tolist(), strict=True)
        }
        labels = np.array([by_image[answers.images[n]] for n in held_out], np.int64)
    return CalibrationImages(Path(answers.photos).name, Photos(read.pixels, labels))


def list_calibration(
    directory: Path, images: PhotoFolder, large: Large, unlabelled: bool
) -> PhotoFolder:
    """The images in `directory` to calibrate on: all, or as many as a calibration table holds.

    With `unlabelled` the names of folders mean nothing; without it the images may still be in no
    subfolders. Raises ExportError if there are too few, if a subfolder has no class's name, or if a file has
    the content of one of `images`, from which the front learns.
    """
    folder = list_tree(directory) if unlabelled else list_photos(directory)
    label_positions(folder, large.labels)
    _refuse_shared(folder, images)
    return folder.sample(MAX_TABLE_LOGITS // (MAX_EXITS * len(large.labels)))


def read_calibration(
    folder: PhotoFolder, large: Large, say: Callable[[str], None]
) -> CalibrationImages:
    """The images of `folder` that can be read. Raises ExportError if there are too few."""
    photos = read_photos(folder, large.side, large.rule, large.labels, say)
    return CalibrationImages(folder.directory.resolve().name, photos)


def _refuse_shared(folder: PhotoFolder, images: PhotoFolder) -> None:
    """Raise ExportError if a file of `folder` has the content of one of `images`."""
    sizes = {_size(file) for file in images.files}
    suspects = [file for file in folder.files if _size(file) in sizes]
    if not suspects:
        return
    suspected = {_size(file) for file in suspects}
    known = {_digest(file) for file in images.files if _size(file) in suspected}
    shared = [file for file in suspects if _digest(file) in known]
    if shared:
        raise ExportError(
            f"{len(shared)} of the {len(folder.files)} images in {folder.directory} are also in "
            f"{images.directory}, from which the front learns: {shared[0]} …"
        )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _digest(file: Path) -> bytes:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return b""  # unreadable, which `read_photos` reports
