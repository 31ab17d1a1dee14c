"""Image folders: one subfolder per class.

    DIR/<class>/*.jpg …                         all are trained on; there is no test split
    DIR/train/<class>/…  DIR/test/<class>/…     the splits as they are; without `test`, `val` is used

Subfolders of a class are searched too, and links to folders followed. Hidden files are ignored. Files without
an image suffix and files that cannot be read are passed over, counted and named. So are images beside the
classes in `train`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offramp.file_names import is_utf8, shown_name
from offramp.images.formats import SUFFIXES
from training.data.dataset import Dataset, Split, channel_statistics
from training.data.image_files import read_images
from training.errors import DataError

# One to hold out, and a few to train on.
MIN_IMAGES_PER_CLASS = 5
# Names of splits, in any case. Folders that all have such names are no classes.
SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
# Files passed over that are named; the others are counted.
MAX_NAMED = 5

FilesByClass = Mapping[str, list[Path]]


@dataclass(frozen=True)
class ListedImages:
    """The files with an image suffix of every class: to train on, and to test on if there is a test
    folder; the other files in the folders of the classes, and the images that have no class."""

    train: FilesByClass
    test: FilesByClass | None
    foreign: list[Path]
    loose: list[Path]


def load_image_folder(directory: Path, side: int) -> Dataset:
    """Read the images below `directory` as RGB of `side` pixels, with classes sorted by name.

    Files that are no images or cannot be read are passed over. Raises DataError, in one sentence, if
    `directory` is not a directory or has fewer than two classes, or if a class has too few readable
    images or none to test.
    """
    listed = list_images(directory)
    train_paths, train_labels = _flatten(listed.train)
    test_paths, test_labels = _flatten(listed.test or {})
    paths, labels = [*train_paths, *test_paths], np.concatenate([train_labels, test_labels])
    read = read_images(paths, side, f"reading {directory.name}")
    count = int((read.positions < len(train_paths)).sum())
    labels = labels[read.positions]
    _check_readable(listed, labels, count, read.failures)
    mean, std = channel_statistics(read.pixels[:count])
    paths = [paths[position] for position in read.positions]
    return Dataset(
        name=directory.resolve().name,
        train=Split(read.pixels[:count], labels[:count]),
        test=Split(read.pixels[count:], labels[count:]),
        classes=tuple(listed.train),
        mean=mean,
        std=std,
        fingerprint=_fingerprint(directory, paths, labels, count),
        passed_over=_passed_over(directory, listed, read.failures),
    )


def _check_readable(
    listed: ListedImages, labels: NDArray[np.int64], count: int, failures: Mapping[int, DataError]
) -> None:
    """Raise DataError if the files that can be read leave a class with too few images."""
    if not failures:
        return
    first = next(iter(failures.values()))
    parts = [(labels[:count], MIN_IMAGES_PER_CLASS, "to train on")]
    if listed.test is not None:
        parts.append((labels[count:], 1, "to test on"))
    for part, least, purpose in parts:
        for name, left in zip(
            listed.train, np.bincount(part, minlength=len(listed.train)), strict=True
        ):
            if left < least:
                raise DataError(
                    f"class {name} has {left} readable images {purpose}, of at least {least}: {first}"
                )


def _passed_over(
    directory: Path, listed: ListedImages, failures: Mapping[int, DataError]
) -> str | None:
    """The sentence that counts and names the files that were not used; None if all were."""
    counts = [
        (len(failures), "that cannot be read"),
        (len(listed.foreign), "without an image suffix"),
        (len(listed.loose), "in no folder of a class"),
    ]
    parts = [f"{count} {what}" for count, what in counts if count]
    if not parts:
        return None
    named = [str(error) for error in list(failures.values())[:MAX_NAMED]]
    others = [*listed.foreign, *listed.loose]
    named += [shown_name(path) for path in others[: MAX_NAMED - len(named)]]
    more = len(failures) + len(others) - len(named)
    return (
        f"files of {shown_name(directory.name)} passed over: {' and '.join(parts)}: "
        + "; ".join(name.rstrip(".") for name in named)
        + (f"; and {more} more" if more else "")
    )


def list_images(directory: Path) -> ListedImages:
    """Every class's training images, and its test images if the directory has a test folder.

    Raises DataError for faults of the directory; the images are not read.
    """
    if not directory.is_dir():
        raise DataError(
            f"{shown_name(directory)} is not a directory; data.path names one with a subfolder of images "
            "per class."
        )
    try:
        return _list(directory)
    except OSError as error:
        raise DataError(
            f"{error.filename or directory} cannot be read: {error.strerror}."
        ) from error


def _list(directory: Path) -> ListedImages:
    train_root, test_root = _roots(directory)
    if train_root == directory:
        _refuse_split_names(directory)
    train_files = {folder.name: files_below(folder) for folder in class_folders(train_root)}
    train = {name: [f for f in files if has_image_suffix(f)] for name, files in train_files.items()}
    if len(train) < 2:
        has = f"only one class ({next(iter(train))})" if train else "no folders of images"
        raise DataError(f"{train_root} has {has}; two or more classes need a folder each.")
    for name, images in train.items():
        if not is_utf8(name):
            raise DataError(
                f"the folder {shown_name(train_root / name)} has a name that is not UTF-8; rename it."
            )
        if len(images) < MIN_IMAGES_PER_CLASS:
            raise DataError(
                f"class {name} has too few images in {train_root / name}: {len(images)} of at least "
                f"{MIN_IMAGES_PER_CLASS}."
            )
    foreign = [f for files in train_files.values() for f in files if not has_image_suffix(f)]
    loose = [] if train_root == directory else _loose_images(train_root)
    if test_root is None:
        return ListedImages(train, None, foreign, loose)
    test_files = {folder.name: files_below(folder) for folder in class_folders(test_root)}
    test = {name: [f for f in files if has_image_suffix(f)] for name, files in test_files.items()}
    foreign += [f for files in test_files.values() for f in files if not has_image_suffix(f)]
    for name in sorted(train.keys() ^ test.keys()):
        root = test_root if name in train else train_root
        raise DataError(
            f"class {shown_name(name)} has a folder in {directory}, but none in {root}."
        )
    for name, images in test.items():
        if not images:
            raise DataError(f"class {name} has no images in {test_root / name}.")
    return ListedImages(train, {name: test[name] for name in train}, foreign, loose)


def _roots(directory: Path) -> tuple[Path, Path | None]:
    """The folders that hold the classes. A folder `train` that holds images itself, beside folders that
    are no splits, is a class."""
    train = directory / "train"
    if not train.is_dir() or not class_folders(train):
        return directory, None
    splits = all(folder.name.casefold() in SPLIT_NAMES for folder in class_folders(directory))
    if not splits and _loose_images(train):
        return directory, None
    tests = (directory / name for name in ("test", "val"))
    return train, next((test for test in tests if test.is_dir()), None)


def _refuse_split_names(directory: Path) -> None:
    names = [folder.name for folder in class_folders(directory)]
    if names and all(name.casefold() in SPLIT_NAMES for name in names):
        raise DataError(
            f"the folders of {shown_name(directory)} have names of splits, not of classes "
            f"({', '.join(names)}): call the one with the training images train, the other test or val, "
            "with a folder per class in each."
        )


def refuse_runs_among_images(directory: Path, runs: Path) -> None:
    """Raise DataError if the directory `runs` would be taken for one of the classes in `directory`."""
    train_root, _ = _roots(directory)
    root, place = train_root.resolve(), runs.resolve()
    if not place.is_relative_to(root):
        return
    if not any(part.startswith(".") for part in place.relative_to(root).parts):
        raise DataError(
            f"the runs would be written among the images, into {shown_name(place)}: give --runs a "
            "directory outside them."
        )


def unread_folders(directory: Path) -> list[str]:
    """The names of the folders beside `train` that no run reads, except a spare `val`."""
    train_root, test_root = _roots(directory)
    if train_root == directory:
        return []
    read = (train_root, test_root, spare_split(directory))
    return [folder.name for folder in class_folders(directory) if folder not in read]


def spare_split(directory: Path) -> Path | None:
    """`val` beside `train` and `test`, which no run reads, so that it can calibrate; None without one."""
    _, test_root = _roots(directory)
    val = directory / "val"
    return val if test_root not in (None, val) and val.is_dir() else None


def class_folders(directory: Path) -> list[Path]:
    """The folders in `directory`, except hidden ones, sorted."""
    return sorted(p for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))


def files_below(folder: Path) -> list[Path]:
    """The files in `folder` and its subfolders, except hidden ones, sorted. Links to folders are followed;
    a folder that is reached twice counts once."""
    files: list[Path] = []
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := Path(place).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += (Path(place, name) for name in names if not name.startswith("."))
    return sorted(file for file in files if file.is_file())


def has_image_suffix(path: Path) -> bool:
    """Whether the name of `path` is that of an image."""
    return path.suffix.lower() in SUFFIXES


def _loose_images(folder: Path) -> list[Path]:
    """The images directly in `folder`, except hidden ones, sorted."""
    return sorted(
        path
        for path in folder.iterdir()
        if has_image_suffix(path) and not path.name.startswith(".") and path.is_file()
    )


def _flatten(files: FilesByClass) -> tuple[list[Path], NDArray[np.int64]]:
    paths = [path for images in files.values() for path in images]
    sizes = [len(images) for images in files.values()]
    return paths, np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)


def _fingerprint(
    directory: Path, paths: Sequence[Path], labels: NDArray[np.int64], training: int
) -> str:
    """SHA-256 of the images' labels and paths below `directory`, in order, and of the number of
    `training` images among them. The held-out split depends on nothing else."""
    digest = hashlib.sha256(f"{training}\0".encode())
    for path, label in zip(paths, labels, strict=True):
        digest.update(f"{label} ".encode() + os.fsencode(path.relative_to(directory)) + b"\0")
    return digest.hexdigest()
