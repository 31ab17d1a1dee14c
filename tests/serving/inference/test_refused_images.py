"""Files that are truncated, damaged, too large or of other formats are refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from serving.errors import InvalidImageError
from serving.inference.engine import decode
from tests.serving.conftest import encode
from tests.serving.inference.images import LIMIT, SPEC, noise, png_header


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    content = encode(noise(64, 64), kind)
    with pytest.raises(InvalidImageError):
        decode(content[: int(len(content) * share)], SPEC, LIMIT)


@pytest.mark.parametrize(
    "content",
    [
        b"plain text, not an image",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0" * 64,
        b"\xff\xd8\xff",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        encode(noise(16, 16), "ICO"),
        encode(noise(16, 16), "PPM"),
        encode(noise(16, 16), "TGA"),
    ],
    ids=["text", "svg", "zeros", "jpeg magic", "webp magic", "icon", "ppm", "tga"],
)
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidImageError):
        decode(content, SPEC, LIMIT)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(InvalidImageError, match="empty"):
        decode(b"", SPEC, LIMIT)


@pytest.mark.parametrize("size", [(1001, 1000), (60_000, 60_000)])
def test_too_many_pixels_are_refused_by_the_header(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidImageError, match="pixels"):
        decode(png_header(*size), SPEC, LIMIT)


@pytest.mark.parametrize("size", [(65_536, 1), (1, 65_536)])
def test_a_side_that_is_too_long_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidImageError, match="65535"):
        decode(encode(Image.new("L", size)), SPEC, LIMIT)


def test_damaged_files_raise_only_invalid_image_errors() -> None:
    rng = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        content = np.frombuffer(encode(noise(32, 32), kind), dtype=np.uint8)
        for _ in range(60):
            damaged = content.copy()
            at = rng.integers(0, len(damaged), 4)
            damaged[at] = rng.integers(0, 256, 4)
            try:
                found = decode(damaged.tobytes(), SPEC, LIMIT)
            except InvalidImageError:
                continue
            assert found.shape == (16, 16, 3)
