"""JPEGs are decoded at a reduced scale where the result hardly differs from that at full scale."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image, ImageOps

from offramp.images import MIN_DRAFT_SCALE, ImageSpec, decode, decoder, jpeg

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"
SIDE = 224
# Of 255.
LEVELS = 1.0
# Of the turns by EXIF orientation, those that are not their own inverse.
INVERSE = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def enlarged(name: str, side: int, orientation: int = 1) -> bytes:
    """A photograph as JPEG whose shorter side has `side` pixels, stored in an EXIF orientation."""
    with Image.open(PHOTOS / name) as image:
        scale = side / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        stored = image.resize(size, Image.Resampling.BICUBIC)
    if orientation in decoder.UPRIGHT:
        stored = stored.transpose(INVERSE.get(orientation, decoder.UPRIGHT[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    stored.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def at_full_scale(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as stored:
        image = ImageOps.exif_transpose(stored)
        least = min(image.size)
        left, top = (image.width - least) / 2, (image.height - least) / 2
        box = (left, top, left + least, top + least)
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))


def decoded_size(content: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The size to which libjpeg decodes `content`."""
    sizes = []
    load = jpeg.load

    def note(whole: jpeg.Jpeg, image: Image.Image) -> None:
        load(whole, image)
        sizes.append(image.size)

    monkeypatch.setattr(jpeg, "load", note)
    decode(content, ImageSpec(SIDE, SIDE), 10**8)
    return sizes[0]


@pytest.mark.parametrize("name", ["flower.jpg", "china.jpg"])
@pytest.mark.parametrize("times", [2.9, 3.0, 3.5, 4.5, 6.5, 9.0])
def test_the_result_is_within_a_level_of_that_at_full_scale(name: str, times: float) -> None:
    content = enlarged(name, round(times * SIDE))
    found = decode(content, ImageSpec(SIDE, SIDE), 10**8)
    difference = np.abs(found.astype(int) - at_full_scale(content)).mean()
    assert difference < LEVELS


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [717, 1435])
def test_odd_sizes_are_not_shifted_in_any_orientation(orientation: int, side: int) -> None:
    """libjpeg rounds a reduced size up, so the last column and row are only partly of the image."""
    content = enlarged("china.jpg", side, orientation)
    found = decode(content, ImageSpec(SIDE, SIDE), 10**8)
    assert np.abs(found.astype(int) - at_full_scale(content)).mean() < LEVELS


@pytest.mark.parametrize(("times", "reduced"), [(2.9, 1), (3.1, 2), (5.9, 2), (6.1, 4), (12.1, 8)])
def test_an_image_is_reduced_as_far_as_it_stays_half_as_large_again(
    times: float, reduced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MIN_DRAFT_SCALE == 1.5
    side = round(times * SIDE)
    decoded = decoded_size(enlarged("flower.jpg", side), monkeypatch)
    assert min(decoded) == pytest.approx(side / reduced, abs=1)


def test_no_image_is_reduced_below_what_a_stretched_one_needs() -> None:
    size = decoder._min_draft_size((1000, 500), ImageSpec(101, 33, "stretch"), swapped=False)
    assert size == (50, 152)
