"""What is known of the data sets without having them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Side of the square images in pixels, number of classes, number of training images."""

    side: int
    classes: int
    train: int


SHAPES = {
    "cifar100": Shape(32, 100, 50_000),
    "tiny-imagenet": Shape(64, 200, 100_000),
    "digits": Shape(16, 10, 1_397),
}
