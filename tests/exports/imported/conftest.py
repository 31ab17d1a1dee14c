from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from exports.bundle.reader import Bundle, load_bundle
from tests.commands import call
from tests.exports.imported.classifiers import (
    CLASSES,
    SIDE,
    ZERO_ONE,
    write_classifier,
    write_images,
)

# Another order, and a class that is none of the images'.
OTHER_ORDER = ("background", "red", "grey", "blue", "green")
SMALL_SIDE = 20
SMALL_CROP = 20 / 24


@dataclass(frozen=True)
class Given:
    """What a user has: two classifiers, their labels, and images with and without labels."""

    small: Path
    large: Path
    labels: Path
    other_labels: Path
    photos: Path
    unlabelled: Path

    @property
    def options(self) -> tuple[object, ...]:
        """The arguments of `offramp cascade` for both networks, without the images and the output."""
        return (
            *(self.small, self.large),
            *("--labels", self.labels, "--labels", self.other_labels),
            *("--preprocess", "imagenet", "--preprocess", "zero-one"),
            *("--crop", SMALL_CROP, "--crop", 1),
        )


@pytest.fixture(scope="package")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A small NCHW network that returns logits, and a large NHWC one that returns probabilities in another
    order of labels."""
    place = tmp_path_factory.mktemp("given")
    small = write_classifier(place / "small.onnx", side=SMALL_SIDE, error=0.004)
    large = write_classifier(
        place / "large.onnx",
        side=SIDE,
        layout="nhwc",
        normal=ZERO_ONE,
        labels=OTHER_ORDER,
        width=64,
        probabilities=True,
    )
    labels, other = place / "labels.txt", place / "other.txt"
    labels.write_text("\n".join(CLASSES))
    other.write_text("\n".join(OTHER_ORDER))
    photos = write_images(place / "photos", 350)
    unlabelled = write_images(place / "unlabelled", 300, labelled=False)
    return Given(small, large, labels, other, photos, unlabelled)


@pytest.fixture(scope="package")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few images with labels: too few for any promise."""
    return write_images(tmp_path_factory.mktemp("few") / "photos", 8)


@dataclass(frozen=True)
class Made:
    """A bundle, and what the command said."""

    bundle: Bundle
    said: str


@pytest.fixture(scope="package")
def made(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(given, given.photos, tmp_path_factory)


@pytest.fixture(scope="package")
def made_without_labels(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(given, given.unlabelled, tmp_path_factory)


def make(given: Given, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    target = tmp_path_factory.mktemp("made") / "cascade"
    done = call("cascade", *given.options, "--calibrate", photos, "-o", target)
    assert done.code == 0, done.err
    return Made(load_bundle(target), done.out)
