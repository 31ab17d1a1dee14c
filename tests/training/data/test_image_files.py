"""Training decodes an image exactly as the server does, and names an unreadable one."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exports.bundle.manifest import InputSpec
from serving.inference.engine import decode
from tests.profiles import display_p3
from training.data.image_files import CHUNK_IMAGES, read_image, read_images
from training.errors import DataError


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def scene(height: int, width: int) -> Image.Image:
    return noise(9, 12).resize((width, height), Image.Resampling.BICUBIC)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("landscape.jpg", scene(480, 641), {}),
        ("portrait.jpeg", scene(700, 333), {}),
        ("turned.JPG", scene(481, 640), {"exif": turned(6)}),
        ("grey.jpg", scene(200, 300).convert("L"), {}),
        ("print.jpg", scene(200, 300).convert("CMYK"), {}),
        ("exact.png", noise(32, 32), {}),
        ("small.png", noise(9, 14), {}),
        ("line.png", noise(1, 300), {}),
        ("clear.png", scene(90, 80).convert("RGBA").rotate(30), {}),
        ("palette.png", scene(90, 80).convert("P"), {"transparency": 3}),
        ("deep.png", Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13), {}),
        ("photo.webp", scene(120, 90), {}),
        ("photo.avif", scene(120, 90), {}),
        ("drawing.gif", scene(120, 90).convert("P"), {}),
        ("old.bmp", scene(120, 90), {}),
        ("scan.tif", scene(120, 90), {"compression": "tiff_lzw"}),
        ("turned.tiff", scene(120, 90), {"exif": turned(5)}),
        ("phone.jpg", scene(300, 200), {"icc_profile": display_p3()}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_image_has_the_same_pixels_as_in_the_server(
    tmp_path: Path, name: str, image: Image.Image, options: dict[str, object], side: int
) -> None:
    path = tmp_path / name
    image.save(path, **options)
    served = decode(path.read_bytes(), InputSpec(height=side, width=side), 1_000_000)
    found = read_image(path, side)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, served)


def test_images_are_read_in_order(tmp_path: Path) -> None:
    paths = []
    for number in range(CHUNK_IMAGES + 3):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (40, 40), (number, 0, 255 - number)).save(paths[-1])
    read = read_images(paths, 32, "reading")
    images = read.pixels
    assert (len(read.positions), read.failures) == (len(paths), {})
    assert images.shape == (CHUNK_IMAGES + 3, 32, 32, 3)
    assert images[:, 5, 5, 0].tolist() == list(range(CHUNK_IMAGES + 3))


def truncated(path: Path) -> None:
    noise(80, 80).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def claims_to_be_huge(path: Path) -> None:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(ihdr) - 4) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("half.jpg", truncated),
        ("half.png", truncated),
        ("half.webp", truncated),
        ("huge.png", claims_to_be_huge),
        ("text.jpg", lambda path: path.write_text("no image")),
        ("empty.jpg", lambda path: path.touch()),
        ("missing.jpg", lambda path: None),
    ],
)
def test_an_unreadable_image_is_passed_over_and_named_in_one_sentence(
    tmp_path: Path, name: str, spoil: object
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / name
    noise(40, 40).save(good)
    assert callable(spoil)
    spoil(bad)
    read = read_images([good, bad, good], 32, "reading")
    assert read.positions.tolist() == [0, 2]
    assert np.array_equal(read.pixels, np.stack([read_image(good, 32)] * 2))
    assert list(read.failures) == [1]
    assert isinstance(read.failures[1], DataError)
    assert str(bad) in str(read.failures[1])
    assert "\n" not in str(read.failures[1])


def test_images_may_have_more_pixels_than_pillow_permits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    for name in ("large.png", "large.jpg", "large.webp", "large.gif"):
        noise(40, 40).save(tmp_path / name)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
        assert read_image(tmp_path / name, 32).shape == (32, 32, 3)
