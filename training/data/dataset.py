"""What a data set is here: two splits of uint8 images in memory, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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

    `mean` and `std` are per channel, of the training images, in units of the full range.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def hold_out(
    labels: NDArray[np.int64], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose `count` samples to keep out of training, the same number of each class.

    Returns the indices that stay and those held out, both sorted. When `count` is no multiple of
    the number of classes, the first classes give one more. Raises DataError if a class is too small.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    share, rest = divmod(count, len(classes))
    chosen = []
    for position, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        wanted = share + (position < rest)
        if wanted >= len(members):
            raise DataError(
                f"cannot hold out {count} samples: class {label} has only {len(members)} of them."
            )
        chosen.append(rng.permutation(members)[:wanted])
    held_out = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def load_dataset(name: str, root: Path, download: bool = False) -> Dataset:
    """Load data set `name` (a key of LOADERS) from below `root`.

    Raises DataError if its files are missing and `download` is not set, or if they are damaged.
    """
    from training.data.cifar import load_cifar100
    from training.data.digits import load_digits

    if name == "cifar100":
        return load_cifar100(root, download)
    if name == "digits":
        return load_digits()
    raise DataError(f"unknown data set {name!r}; there are cifar100 and digits.")
