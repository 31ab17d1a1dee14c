"""Tiny ImageNet-200 (Stanford CS231n): 100,000 training and 10,000 validation images of 64 pixels.

Read as published. The official validation images are the test split, since the official test images
have no labels. Decoding takes a while, so the decoded images are cached beside the files.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset, Split, channel_statistics
from training.data.fetch import fetch_archive
from training.data.image_files import read_images
from training.errors import DataError

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ARCHIVE_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
FOLDER = "tiny-imagenet-200"
CACHE = "decoded.npz"
SIDE = 64


def load_tiny_imagenet(root: Path, download: bool = False) -> Dataset:
    """Read Tiny ImageNet from `root`/tiny-imagenet-200; with `download`, download it there first.

    Classes are in the order of their WordNet ids, each with the first of its names. Raises DataError
    naming the file if one is missing, damaged or cannot be downloaded.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        if not download:
            raise DataError(
                f"Tiny ImageNet is not in {folder}: unpack {URL} into {root}, or add --download."
            )
        fetch_archive(URL, ARCHIVE_MD5, root, FOLDER)
    wnids = sorted(line.strip() for line in _lines(folder / "wnids.txt"))
    names = _names(folder / "words.txt", wnids)
    train_paths, train_labels = _train_files(folder / "train", wnids)
    test_paths, test_labels = _test_files(folder / "val", wnids)
    images = _decoded(folder, [*train_paths, *test_paths])
    count = len(train_paths)
    mean, std = channel_statistics(images[:count])
    return Dataset(
        name="tiny-imagenet",
        train=Split(images[:count], train_labels),
        test=Split(images[count:], test_labels),
        classes=names,
        mean=mean,
        std=std,
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    if not lines:
        raise _damaged(path, "is empty")
    return lines


def _names(path: Path, wnids: Sequence[str]) -> tuple[str, ...]:
    """The first name of every class, followed by the id if another class has the same name."""
    words = dict(line.split("\t", 1) for line in _lines(path) if "\t" in line)
    missing = [wnid for wnid in wnids if wnid not in words]
    if missing:
        raise _damaged(path, f"has no name for {missing[0]}")
    names = [words[wnid].split(",")[0].strip() for wnid in wnids]
    counts = Counter(names)
    return tuple(
        name if counts[name] == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )


def _train_files(folder: Path, wnids: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    paths: list[Path] = []
    for wnid in wnids:
        paths += sorted((folder / wnid / "images").glob("*.JPEG"))
    labels = [path.parent.parent.name for path in paths]
    return paths, _balanced(folder, labels, wnids)


def _test_files(folder: Path, wnids: Sequence[str]) -> tuple[list[Path], NDArray[np.int64]]:
    annotations = folder / "val_annotations.txt"
    paths, labels = [], []
    for line in _lines(annotations):
        name, _, rest = line.partition("\t")
        label = rest.split("\t")[0]
        if label not in wnids or Path(name).name != name:
            raise _damaged(
                annotations, f"has the line {line!r}, which does not name an image and its class"
            )
        paths.append(folder / "images" / name)
        labels.append(label)
    return paths, _balanced(annotations, labels, wnids)


def _balanced(source: Path, labels: Sequence[str], wnids: Sequence[str]) -> NDArray[np.int64]:
    """The labels as numbers. Raises DataError unless every class has the same number of images."""
    counts = Counter(labels)
    fewest = min(wnids, key=lambda wnid: counts[wnid])
    if counts[fewest] < max(counts.values(), default=1):
        raise _damaged(source, f"has {counts[fewest]} images of {fewest}, fewer than of others")
    number = {wnid: position for position, wnid in enumerate(wnids)}
    return np.array([number[label] for label in labels], dtype=np.int64)


def _decoded(folder: Path, paths: Sequence[Path]) -> NDArray[np.uint8]:
    """The images as uint8 [N, 64, 64, 3], from the cache if it is complete and of the same files."""
    key = _fingerprint(folder, paths)
    cached = _read_cache(folder / CACHE, key, len(paths))
    if cached is not None:
        return cached
    read = read_images(paths, SIDE, "decoding Tiny ImageNet")
    for error in read.failures.values():
        raise error
    images = read.pixels
    try:
        _write_cache(folder / CACHE, key, images)
    except OSError as error:
        sys.stderr.write(
            f"{folder / CACHE} could not be written: {error}; the images are decoded again next time.\n"
        )
    return images


def _fingerprint(folder: Path, paths: Sequence[Path]) -> str:
    """A hash of the files' names, sizes and modification times."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
        except OSError as error:
            raise _damaged(path, f"cannot be read ({error.strerror})") from error
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_cache(path: Path, key: str, count: int) -> NDArray[np.uint8] | None:
    """The cached images, or None if they are missing, of other files, or damaged (by their CRC)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            images = arrays["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if images.shape != (count, SIDE, SIDE, 3) or images.dtype != np.uint8:
        return None
    return images


def _write_cache(path: Path, key: str, images: NDArray[np.uint8]) -> None:
    """Write the decoded images in one step."""
    part = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.savez(file, images=images, key=np.array(key))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}; unpack {URL} again.")
