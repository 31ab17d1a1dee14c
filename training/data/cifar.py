"""CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 pixels, 100 classes.

The official archive is read as published. Its files are pickles, so each is unpickled only after its
md5 is checked against the official one.
"""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from training.data.dataset import Dataset, Split, channel_statistics
from training.data.fetch import fetch_archive
from training.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
ARCHIVE_MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
FOLDER = "cifar-100-python"
FILE_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


def load_cifar100(root: Path, download: bool = False) -> Dataset:
    """Read CIFAR-100 from `root`/cifar-100-python; with `download`, download it there first.

    Raises DataError naming the file if one is missing, damaged or cannot be downloaded.
    """
    folder = root / FOLDER
    if not all((folder / name).is_file() for name in FILE_MD5):
        if not download:
            raise DataError(
                f"CIFAR-100 is not in {folder}: unpack {URL} into {root}, or add --download."
            )
        fetch_archive(URL, ARCHIVE_MD5, root, FOLDER)
    train, test = _read(folder, "train"), _read(folder, "test")
    names = _unpickle(folder, "meta")["fine_label_names"]
    mean, std = channel_statistics(train.images)
    return Dataset(
        name="cifar100",
        train=train,
        test=test,
        classes=tuple(names),
        mean=mean,
        std=std,
    )


def _read(folder: Path, name: str) -> Split:
    batch = _unpickle(folder, name)
    images = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
    labels = np.asarray(batch["fine_labels"], dtype=np.int64)
    return Split(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels)


def _unpickle(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if hashlib.md5(content).hexdigest() != FILE_MD5[name]:
        raise DataError(
            f"{path} is not the official file (its md5 differs); move {folder} away and download it again."
        )
    loaded: dict[str, Any] = pickle.loads(content, encoding="latin1")
    return loaded
