"""The folder of images that a bundle is calibrated on: one subfolder per class, or images without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exports.bundle.errors import ExportError
from exports.bundle.untrusted.safe_files import one_line
from exports.spread import evenly_spread
from training.data.image_files import ResizeRule, read_images
from training.data.image_folder import class_folders, files_below, has_image_suffix

# Fewer support no temperature and no threshold.
MIN_IMAGES = 20


@dataclass(frozen=True)
class PhotoFolder:
    """The image files of a folder, and for each the name of its class; None if there are no subfolders."""

    directory: Path
    files: tuple[Path, ...]
    classes: tuple[str, ...] | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the subfolders, sorted."""
        return tuple(sorted(set(self.classes or ())))

    def sample(self, most: int) -> PhotoFolder:
        """At most `most` of the files, as far apart as possible."""
        count = len(self.files)
        if count <= most:
            return self
        kept = evenly_spread(count, most).tolist()
        classes = None if self.classes is None else tuple(self.classes[n] for n in kept)
        return PhotoFolder(self.directory, tuple(self.files[n] for n in kept), classes)


@dataclass(frozen=True)
class Photos:
    """Images uint8 [N, S, S, 3], and the positions of their labels in the bundle's, int64 [N]; None without
    labels."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


def list_photos(directory: Path) -> PhotoFolder:
    """The images below `directory`. Raises ExportError if there are too few, or some in and some out of
    subfolders."""
    if not directory.is_dir():
        raise ExportError(f"{directory} is not a directory with images to calibrate on.")
    try:
        folders = class_folders(directory)
        loose = [f for f in sorted(directory.iterdir()) if f.is_file() and has_image_suffix(f)]
        loose = [file for file in loose if not file.name.startswith(".")]
        pairs = [(f, d.name) for d in folders for f in files_below(d) if has_image_suffix(f)]
    except OSError as error:
        raise ExportError(
            f"{error.filename or directory} cannot be read: {error.strerror}."
        ) from error
    if pairs and loose:
        raise ExportError(
            f"{directory} has images in subfolders and {loose[0].name} beside them: give every image a "
            "subfolder with the name of its class, or none."
        )
    files = loose or [file for file, _ in pairs]
    if len(files) < MIN_IMAGES:
        raise ExportError(
            f"{directory} has {len(files)} images; at least {MIN_IMAGES} are needed to calibrate."
        )
    return PhotoFolder(directory, tuple(files), tuple(name for _, name in pairs) if pairs else None)


def list_tree(directory: Path) -> PhotoFolder:
    """The images in `directory` and all folders below it, without labels. Raises ExportError if there are
    too few."""
    if not directory.is_dir():
        raise ExportError(f"{directory} is not a directory with images.")
    try:
        files = [file for file in files_below(directory) if has_image_suffix(file)]
    except OSError as error:
        raise ExportError(
            f"{error.filename or directory} cannot be read: {error.strerror}."
        ) from error
    if len(files) < MIN_IMAGES:
        raise ExportError(
            f"{directory} has {len(files)} images; at least {MIN_IMAGES} are needed to calibrate."
        )
    return PhotoFolder(directory, tuple(files), None)


def read_photos(
    folder: PhotoFolder,
    side: int,
    rule: ResizeRule,
    labels: Sequence[str],
    say: Callable[[str], None],
) -> Photos:
    """Decode the images of `folder` as the server does. Files that cannot be read are passed over.

    Raises ExportError if a subfolder has no class's name, or if too few images can be read.
    """
    positions = label_positions(folder, labels)
    read = read_images(folder.files, side, f"reading {folder.directory.name}", rule)
    if read.failures:
        first = next(iter(read.failures.values()))
        say(f"{len(read.failures)} files that cannot be read are passed over: {first}")
    if len(read.pixels) < MIN_IMAGES:
        raise ExportError(
            f"{len(read.pixels)} images of {folder.directory} can be read; at least {MIN_IMAGES} are needed."
        )
    return Photos(read.pixels, None if positions is None else positions[read.positions])


def label_positions(folder: PhotoFolder, labels: Sequence[str]) -> NDArray[np.int64] | None:
    """The positions in `labels` of the classes of the files, int64 [N]; None without subfolders.

    Raises ExportError if a subfolder has no class's name.
    """
    if folder.classes is None:
        return None
    index = {label: position for position, label in enumerate(labels)}
    unknown = [name for name in folder.names if name not in index]
    if unknown:
        raise ExportError(
            f"the folder {folder.directory / unknown[0]} has the name of no class; the labels are "
            f"{one_line(', '.join(labels[:5]))} …"
        )
    return np.array([index[name] for name in folder.classes], np.int64)
