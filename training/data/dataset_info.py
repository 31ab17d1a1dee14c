"""Facts about the published data sets, available without downloading them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """Side of the square images in pixels, number of classes, number of training images."""

    side: int
    classes: int
    train_images: int


DATASET_INFO = {
    "cifar100": DatasetInfo(32, 100, 50_000),
    "tiny-imagenet": DatasetInfo(64, 200, 100_000),
    "digits": DatasetInfo(16, 10, 1_397),
}
