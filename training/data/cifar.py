"""CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32 pixels, 100 classes.

The official archive is read as published. Its files are pickles, so nothing of them is unpickled
before its md5 is checked against the official one: what is loaded is data we know.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from training.data.dataset import Dataset, Split
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
    """Read CIFAR-100 from `root`/cifar-100-python; with `download`, fetch it there first.

    Raises DataError naming the file if one is missing, damaged or cannot be fetched.
    """
    folder = root / FOLDER
    if not all((folder / name).is_file() for name in FILE_MD5):
        if not download:
            raise DataError(
                f"CIFAR-100 is not in {folder}: unpack {URL} into {root}, "
                "or add --download to have it done."
            )
        _download(root)
    train, test = _read(folder, "train"), _read(folder, "test")
    names = _unpickle(folder, "meta")["fine_label_names"]
    pixels = train.images.reshape(-1, 3).astype(np.float64) / 255.0
    mean, std = pixels.mean(0), pixels.std(0)
    return Dataset(
        name="cifar100",
        train=train,
        test=test,
        classes=tuple(names),
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
    )


def _read(folder: Path, name: str) -> Split:
    batch = _unpickle(folder, name)
    images = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
    labels = np.asarray(batch["fine_labels"], dtype=np.int64)
    return Split(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels)


def _unpickle(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    content = path.read_bytes()
    if hashlib.md5(content).hexdigest() != FILE_MD5[name]:
        raise DataError(f"{path} is not the official file (its md5 differs); download it again.")
    loaded: dict[str, Any] = pickle.loads(content, encoding="latin1")
    return loaded


def _download(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    archive = root / "cifar-100-python.tar.gz.part"
    try:
        with urllib.request.urlopen(URL, timeout=60) as source, archive.open("wb") as target:
            shutil.copyfileobj(source, target)
        with archive.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() != ARCHIVE_MD5:
                raise DataError(f"what {URL} gave is not the official archive (its md5 differs).")
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="data")
    except OSError as error:
        raise DataError(f"{URL} could not be downloaded to {root}: {error}.") from error
    finally:
        archive.unlink(missing_ok=True)
