"""Your own pictures: a folder per class.

    DIR/<class>/*.jpg …                         a fifth of every class becomes the test split
    DIR/train/<class>/…  DIR/test/<class>/…     the splits as they are; `val` is read if there is no `test`

A class's folder is searched to the bottom. Hidden files, and files that by their suffix are no
pictures, are passed over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset, Split, channel_statistics
from training.data.pictures import SUFFIXES, read_pictures
from training.errors import DataError

# Enough to test with one, hold one out and learn from the rest.
MIN_IMAGES_PER_CLASS = 5
TEST_PART = 5
SPLIT_SEED = 0


def load_folder(directory: Path, side: int) -> Dataset:
    """Read the pictures below `directory` as RGB of `side` pixels, classes in the order of their names.

    Raises DataError, in one sentence, if it is no directory or has fewer than two classes, if a
    class has too few pictures or none to test, or if a picture cannot be read.
    """
    train, test = list_pictures(directory)
    classes = tuple(train)
    paths, labels = _flatten(train)
    if test is None:
        kept, tested = _split(labels)
        order = np.concatenate([kept, tested])
        paths, labels, count = [paths[i] for i in order], labels[order], len(kept)
    else:
        count = len(paths)
        test_paths, test_labels = _flatten(test)
        paths, labels = [*paths, *test_paths], np.concatenate([labels, test_labels])
    images = read_pictures(paths, side, f"reading {directory.name}")
    mean, std = channel_statistics(images[:count])
    return Dataset(
        name=directory.resolve().name,
        train=Split(images[:count], labels[:count]),
        test=Split(images[count:], labels[count:]),
        classes=classes,
        mean=mean,
        std=std,
        fingerprint=_digest(directory, paths, labels, count),
    )


FilesByClass = Mapping[str, list[Path]]


def list_pictures(directory: Path) -> tuple[FilesByClass, FilesByClass | None]:
    """Every class's pictures to train with, and to test with where the directory says which.

    Raises DataError for what is wrong with the directory and not with a picture.
    """
    if not directory.is_dir():
        raise DataError(
            f"{directory} is not a directory; data.path names one with a folder of pictures per class."
        )
    try:
        return _list(directory)
    except OSError as error:
        raise DataError(
            f"{error.filename or directory} cannot be read: {error.strerror}."
        ) from error


def _list(directory: Path) -> tuple[FilesByClass, FilesByClass | None]:
    train_root, test_root = _roots(directory)
    train = {folder.name: _pictures(folder) for folder in _folders(train_root)}
    if len(train) < 2:
        has = f"only one class ({next(iter(train))})" if train else "no folders of pictures"
        raise DataError(
            f"{train_root} has {has}; it takes one folder for each of two or more classes."
        )
    for name, pictures in train.items():
        if len(pictures) < MIN_IMAGES_PER_CLASS:
            raise DataError(
                f"class {name} has too few pictures in {train_root / name}: {len(pictures)}, "
                f"where it takes {MIN_IMAGES_PER_CLASS}."
            )
    if test_root is None:
        return train, None
    test = {folder.name: _pictures(folder) for folder in _folders(test_root)}
    for name in sorted(train.keys() ^ test.keys()):
        lacks = test_root if name in train else train_root
        raise DataError(f"class {name} has a folder in {directory}, but none in {lacks}.")
    for name, pictures in test.items():
        if not pictures:
            raise DataError(f"class {name} has no pictures in {test_root / name}.")
    return train, {name: test[name] for name in train}


def _roots(directory: Path) -> tuple[Path, Path | None]:
    """Where the classes' folders are. A folder `train` with pictures of its own is a class."""
    train = directory / "train"
    if not train.is_dir() or not _folders(train) or any(map(_is_picture, train.iterdir())):
        return directory, None
    tests = (directory / name for name in ("test", "val"))
    return train, next((test for test in tests if test.is_dir()), None)


def _folders(directory: Path) -> list[Path]:
    return sorted(p for p in directory.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and _is_picture(path)
    )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _flatten(files: FilesByClass) -> tuple[list[Path], NDArray[np.int64]]:
    paths = [path for pictures in files.values() for path in pictures]
    sizes = [len(pictures) for pictures in files.values()]
    return paths, np.repeat(np.arange(len(sizes)), sizes)


def _digest(
    directory: Path, paths: Sequence[Path], labels: NDArray[np.int64], training: int
) -> str:
    """SHA-256 of the pictures' labels and names below `directory`, in their order, the first
    `training` of which are trained with. The held-out split depends on nothing else."""
    digest = hashlib.sha256(f"{training}\0".encode())
    for path, label in zip(paths, labels, strict=True):
        digest.update(f"{label} ".encode() + os.fsencode(path.relative_to(directory)) + b"\0")
    return digest.hexdigest()


def share_to_test(pictures: int) -> int:
    """How many of a class's pictures become its test split, where no directory is for it."""
    return round(pictures / TEST_PART)


def _split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to train with and to test with: a fifth of each class, always the same."""
    rng = np.random.default_rng(SPLIT_SEED)
    tested = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        tested[rng.permutation(members)[: share_to_test(len(members))]] = True
    return np.flatnonzero(~tested), np.flatnonzero(tested)
