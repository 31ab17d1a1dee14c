"""The photographs that servers are compared with: a folder's images at the size in which they are sent."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.grocery.images import link_by_class, read_folder
from benchmarks.harness.images import photographs
from exports.bundle.reader import Bundle, load_bundle
from tests.serving.tiny_bundle import LABELS, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 images, 40 pixels wide and 30 high."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in LABELS[:2]:
        (folder / label).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def test_photographs_are_enlarged_and_sent_as_jpeg_with_their_classes(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    images = photographs(bundle, folder, 120, tmp_path / "packed.npz")
    assert images.labels is not None
    assert sorted(images.labels) == [0] * 12 + [1] * 12
    assert images.labels != sorted(images.labels)
    assert images.packed.is_file()
    for file in images.files:
        with Image.open(io.BytesIO(file)) as image:
            assert (image.format, image.size) == ("JPEG", (120, 90))
    assert images.about.startswith("24 photographs, JPEG of 120 pixels and ")


def test_some_of_a_folders_images_are_linked_by_class(folder: Path, tmp_path: Path) -> None:
    listed = read_folder(folder, LABELS, 8)
    for chosen in ([0, 5, 13], [23]):
        link_by_class(listed, np.array(chosen), LABELS, tmp_path / "some")
        found = sorted((tmp_path / "some").rglob("*.png"))
        assert [(file.parent.name, file.resolve()) for file in found] == [
            (LABELS[listed.labels[n]], listed.files[n].resolve()) for n in chosen
        ]
