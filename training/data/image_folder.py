"""Image folders: one subfolder per class.

    DIR/<class>/*.jpg …                         a fifth of every class becomes the test split
    DIR/train/<class>/…  DIR/test/<class>/…     the splits as they are; without `test`, `val` is used

Subfolders of a class are searched too. Hidden files and files without an image suffix are ignored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset, Split, channel_statistics
from training.data.image_files import SUFFIXES, read_images
from training.errors import DataError

# One to test, one to hold out, and a few to train on.
MIN_IMAGES_PER_CLASS = 5
TEST_FRACTION = 1 / 5
SPLIT_SEED = 0


def load_image_folder(directory: Path, side: int) -> Dataset:
    """Read the images below `directory` as RGB of `side` pixels, with classes sorted by name.

    Raises DataError, in one sentence, if it is not a directory or has fewer than two classes, if a
    class has too few images or none to test, or if an image cannot be read.
    """
    train, test = list_images(directory)
    classes = tuple(train)
    paths, labels = _flatten(train)
    if test is None:
        train_indices, test_indices = _split(labels)
        order = np.concatenate([train_indices, test_indices])
        paths, labels, count = [paths[i] for i in order], labels[order], len(train_indices)
    else:
        count = len(paths)
        test_paths, test_labels = _flatten(test)
        paths, labels = [*paths, *test_paths], np.concatenate([labels, test_labels])
    images = read_images(paths, side, f"reading {directory.name}")
    mean, std = channel_statistics(images[:count])
    return Dataset(
        name=directory.resolve().name,
        train=Split(images[:count], labels[:count]),
        test=Split(images[count:], labels[count:]),
        classes=classes,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(directory, paths, labels, count),
    )


FilesByClass = Mapping[str, list[Path]]


def list_images(directory: Path) -> tuple[FilesByClass, FilesByClass | None]:
    """Every class's training images, and its test images if the directory has a test folder.

    Raises DataError for faults of the directory; the images are not read.
    """
    if not directory.is_dir():
        raise DataError(
            f"{directory} is not a directory; data.path names one with a subfolder of images per class."
        )
    try:
        return _list(directory)
    except OSError as error:
        raise DataError(
            f"{error.filename or directory} cannot be read: {error.strerror}."
        ) from error


def _list(directory: Path) -> tuple[FilesByClass, FilesByClass | None]:
    train_root, test_root = _roots(directory)
    train = {folder.name: _images(folder) for folder in _folders(train_root)}
    if len(train) < 2:
        has = f"only one class ({next(iter(train))})" if train else "no folders of images"
        raise DataError(f"{train_root} has {has}; two or more classes need a folder each.")
    for name, images in train.items():
        if len(images) < MIN_IMAGES_PER_CLASS:
            raise DataError(
                f"class {name} has too few images in {train_root / name}: {len(images)} of at least "
                f"{MIN_IMAGES_PER_CLASS}."
            )
    if test_root is None:
        return train, None
    test = {folder.name: _images(folder) for folder in _folders(test_root)}
    for name in sorted(train.keys() ^ test.keys()):
        root = test_root if name in train else train_root
        raise DataError(f"class {name} has a folder in {directory}, but none in {root}.")
    for name, images in test.items():
        if not images:
            raise DataError(f"class {name} has no images in {test_root / name}.")
    return train, {name: test[name] for name in train}


def _roots(directory: Path) -> tuple[Path, Path | None]:
    """The folders that hold the classes. A folder `train` that holds images itself is a class."""
    train = directory / "train"
    if not train.is_dir() or not _folders(train) or any(map(_is_image, train.iterdir())):
        return directory, None
    tests = (directory / name for name in ("test", "val"))
    return train, next((test for test in tests if test.is_dir()), None)


def _folders(directory: Path) -> list[Path]:
    return sorted(p for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and _is_image(path)
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _flatten(files: FilesByClass) -> tuple[list[Path], NDArray[np.int64]]:
    paths = [path for images in files.values() for path in images]
    sizes = [len(images) for images in files.values()]
    return paths, np.repeat(np.arange(len(sizes)), sizes)


def _fingerprint(
    directory: Path, paths: Sequence[Path], labels: NDArray[np.int64], training: int
) -> str:
    """SHA-256 of the images' labels and paths below `directory`, in order, and of the number of
    `training` images among them. The held-out split depends on nothing else."""
    digest = hashlib.sha256(f"{training}\0".encode())
    for path, label in zip(paths, labels, strict=True):
        digest.update(f"{label} ".encode() + os.fsencode(path.relative_to(directory)) + b"\0")
    return digest.hexdigest()


def test_share(images: int) -> int:
    """How many of a class's images become its test split if there is no test folder."""
    return round(TEST_FRACTION * images)


def _split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and to test on: a fifth of each class, always the same."""
    rng = np.random.default_rng(SPLIT_SEED)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        is_test[rng.permutation(members)[: test_share(len(members))]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
