"""A data set: two splits of uint8 images in memory, with labels; and the sizes of the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

MIN_DEVIATION = 1 / 255


@dataclass(frozen=True)
class DatasetInfo:
    """Side of the square images in pixels, number of classes, number of training images."""

    side: int
    classes: int
    train_images: int


# Of the published data sets, without downloading them.
DATASET_INFO = {
    "cifar100": DatasetInfo(32, 100, 50_000),
    "tiny-imagenet": DatasetInfo(64, 200, 100_000),
    "digits": DatasetInfo(16, 10, 1_397),
}


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, H, W, 3] RGB and labels int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """The samples at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, the class names in label order, and the pixel statistics.

    `mean` and `std` are per channel, of the training images, in units of the full range. `fingerprint`
    is a digest of the files behind the splits where these can change, as in an image folder.
    The test split may be empty: an image folder has one only if it comes with one. `passed_over` says
    which files were not used and why, in a sentence; None if all were.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str | None = None
    passed_over: str | None = None

    def matches(self, fingerprint: str | None) -> bool:
        """Whether `fingerprint` is that of the same files; True if either is unknown."""
        return None in (fingerprint, self.fingerprint) or fingerprint == self.fingerprint


def channel_statistics(
    images: NDArray[np.uint8],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each channel of images [N, H, W, 3], in units of the full range.

    Exact up to the last rounding, and in little memory: computed from a histogram of the values. A deviation
    is at least one level of 255: pixels are divided by it, and a channel may be the same everywhere.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), 1024):
        for channel in range(3):
            values = images[start : start + 1024, ..., channel].reshape(-1)
            counts[channel] += np.bincount(values, minlength=256)
    levels = np.arange(256) / 255.0
    mean = counts @ levels / counts.sum(1)
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / counts.sum(1))
    return _three(mean), _three(np.maximum(std, MIN_DEVIATION))


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def hold_out(
    labels: NDArray[np.int64], count: int, seed: int, classes: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose `count` samples to keep out of training, the same number of each class.

    If that were more than half of the smallest class, the numbers are proportional to the classes'
    sizes instead. A remainder is taken from the first classes. Returns the indices to train on and
    those held out, both sorted. Raises DataError if a class would lose all its samples; it is called by its
    name in `classes`.
    """
    rng = np.random.default_rng(seed)
    found, sizes = np.unique(labels, return_counts=True)
    chosen = []
    for label, size, share in zip(found, sizes, _shares(sizes, count), strict=True):
        members = np.flatnonzero(labels == label)
        if share >= size:
            name = classes[label] if classes else label
            raise DataError(
                f"data.held_out = {count} would be {share} of class {name}, which has only {size} samples."
            )
        chosen.append(rng.permutation(members)[:share])
    held_out = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _shares(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many samples of each class are held out, `count` in all."""
    equal = np.full(len(sizes), count / len(sizes))
    exact = equal if 2 * equal.max() <= sizes.min() else count * sizes / sizes.sum()
    shares = exact.astype(np.int64)
    remainder = count - shares.sum()
    shares[np.argsort(shares - exact, kind="stable")[:remainder]] += 1
    return shares
