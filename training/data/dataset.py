"""What a data set is here: two splits of uint8 images in memory, and their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError


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

    `mean` and `std` are per channel, of the training images, in units of the full range. `fingerprint` is
    a digest of what the splits were made of where that can change, as with a folder of pictures.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str | None = None

    def matches(self, fingerprint: str | None) -> bool:
        """Whether it is made of what one of that `fingerprint` was, as far as that is known."""
        return None in (fingerprint, self.fingerprint) or fingerprint == self.fingerprint


def channel_statistics(
    images: NDArray[np.uint8],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each channel of images [N, H, W, 3], in units of the full range.

    Exact but for the last rounding, and in little memory: from how often every value occurs.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), 1024):
        for channel in range(3):
            values = images[start : start + 1024, ..., channel].reshape(-1)
            counts[channel] += np.bincount(values, minlength=256)
    levels = np.arange(256) / 255.0
    mean = counts @ levels / counts.sum(1)
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / counts.sum(1))
    return _three(mean), _three(std)


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def hold_out(
    labels: NDArray[np.int64], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose `count` samples to keep out of training, the same number of each class.

    Where that would be more than half of the smallest class, the numbers are in proportion to the
    classes' sizes instead. Returns the indices that stay and those held out, both sorted. What is
    left over when the numbers do not come out even goes to the first classes. Raises DataError if
    a class would lose all its samples.
    """
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    chosen = []
    for label, size, wanted in zip(classes, sizes, _shares(sizes, count), strict=True):
        members = np.flatnonzero(labels == label)
        if wanted >= size:
            raise DataError(
                f"cannot hold out {count} samples: class {label} has only {size} of them."
            )
        chosen.append(rng.permutation(members)[:wanted])
    held_out = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _shares(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many samples each class gives, `count` in all."""
    equal = np.full(len(sizes), count / len(sizes))
    exact = equal if 2 * equal.max() <= sizes.min() else count * sizes / sizes.sum()
    shares = exact.astype(np.int64)
    rest = count - shares.sum()
    shares[np.argsort(shares - exact, kind="stable")[:rest]] += 1
    return shares
