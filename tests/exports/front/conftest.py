from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from exports.bundle.reader import Bundle, load_bundle
from tests.commands import call
from tests.exports.front.stock import write_squeezenet
from tests.exports.imported.classifiers import CLASSES, write_images

SMALL_SIDE, LARGE_SIDE = 20, 40
# The first exit of the student is trained in a few seconds; 600 images certify no more than this.
PROMISED = 0.95


@dataclass(frozen=True)
class Stock:
    """Two networks of torchvision, the names of their classes, and images in a subfolder for each."""

    small: Path
    large: Path
    labels: Path
    photos: Path

    @property
    def options(self) -> tuple[object, ...]:
        """The arguments of `offramp front` for the large network, without its images."""
        return ("front", self.large, "--labels", self.labels, "--preprocess", "imagenet")


@dataclass(frozen=True)
class Made:
    """A bundle, what the command said, and its directory of runs."""

    bundle: Bundle
    said: str
    runs: Path


@pytest.fixture(scope="package")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    place = tmp_path_factory.mktemp("stock")
    small = write_squeezenet(place / "small.onnx", SMALL_SIDE)
    large = write_squeezenet(place / "large.onnx", LARGE_SIDE)
    labels = place / "labels.txt"
    labels.write_text("\n".join(CLASSES))
    return Stock(small, large, labels, write_images(place / "photos", 150))


@pytest.fixture(scope="package")
def made(stock: Stock, tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("made")
    runs = place / "runs"
    options = ("--runs", runs, "--epochs", 7, "--agreement", PROMISED)
    done = call(*stock.options, "--data", stock.photos, "-o", place / "bundle", *options)
    assert done.code == 0, done.err
    return Made(load_bundle(place / "bundle"), done.out, runs)
