"""The content tells the format, and sentences name it."""

from __future__ import annotations

import io
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image, features

from offramp.errors import ImageError
from offramp.images import ImageSpec, decode
from offramp.images.decoder import image_size
from offramp.images.heif import _register_opener
from tests.offramp.images.made import FORMATS, MAX_PIXELS, encode, read, scene

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind: str) -> None:
    image = scene().quantize(200).convert("RGB") if kind == "GIF" else scene()
    found = read(encode(image.quantize(200) if kind == "GIF" else image, kind))
    assert np.abs(found - np.asarray(image)).mean() < 4


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"%PDF-1.7\n%", "This is a PDF file; "),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "This is an SVG file; "),
        (b"<!DOCTYPE html><html>", "This is an HTML or XML page; "),
        (b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41", "This is a video or audio file; "),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "This is a JPEG XL file; "),
        (b"PK\x03\x04\x14\0", "This is a ZIP archive; "),
        (b"8BPS\0\1", "This is a Photoshop file; "),
        (b"no image at all", "The image is in an unknown format; "),
        (b"", "The image is empty."),
        (b"\xff\xd8\xff\xe0", "The JPEG file is damaged or incomplete."),
        (b"\x89PNG\r\n\x1a\n", "The PNG file is damaged or incomplete."),
        (b"GIF89a", "The GIF file is damaged or incomplete."),
        (b"II*\0\x08\0\0\0", "The TIFF file is damaged or incomplete."),
        (b"BM" + bytes(40), "The BMP file is damaged or incomplete."),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "The WebP file is damaged or incomplete."),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "The AVIF file is damaged or incomplete."),
    ],
)
def test_a_sentence_names_what_was_found(content: bytes, sentence: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode(content, ImageSpec(8, 8), MAX_PIXELS)
    assert str(caught.value).startswith(sentence)


def test_a_heic_file_without_the_extra_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _register_opener.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"^This is a HEIC file; install offramp\[heif\]"):
        decode(HEIC, ImageSpec(8, 8), MAX_PIXELS)


def test_a_heic_file_is_read_with_the_extra() -> None:
    content = io.BytesIO()
    pillow_heif.from_pillow(scene()).save(content, quality=95)
    assert np.abs(read(content.getvalue()) - np.asarray(scene())).mean() < 6
    with pytest.raises(ImageError, match="damaged"):
        decode(HEIC, ImageSpec(8, 8), MAX_PIXELS)


def test_an_avif_file_is_named_where_pillow_cannot_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(scene(), "AVIF")
    monkeypatch.setattr(features, "check", lambda feature: False)
    with pytest.raises(ImageError, match=r"^This is an AVIF file; "):
        decode(content, ImageSpec(8, 8), MAX_PIXELS)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_size_is_read_without_the_image_and_limited_as_in_decoding(kind: str) -> None:
    content = encode(Image.new("L", (300, 200)), kind)
    assert image_size(content, 60_000) == (300, 200)
    with pytest.raises(ImageError, match="300 x 200 pixels; at most 50000"):
        image_size(content, 50_000)


@pytest.mark.parametrize("kind", FORMATS)
def test_pillows_own_limit_is_raised_only_for_a_caller_that_permits_more(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encode(Image.new("L", (300, 200)), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 29_000)
    with pytest.raises(ImageError, match="pixels"):
        decode(content, ImageSpec(8, 8), 58_000)
    assert Image.MAX_IMAGE_PIXELS == 29_000
    assert decode(content, ImageSpec(8, 8), 60_000).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_limit_of_pixels_holds_in_every_format(kind: str) -> None:
    content = encode(Image.new("L", (300, 200)), kind)
    with pytest.raises(ImageError, match="300 x 200 pixels; at most 50000"):
        decode(content, ImageSpec(8, 8), 50_000)


def test_a_jpeg_of_twelve_bits_is_refused_for_that() -> None:
    content = bytearray(encode(scene(), "JPEG"))
    content[content.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ImageError, match="12 bits a channel"):
        decode(bytes(content), ImageSpec(8, 8), MAX_PIXELS)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_tiff_of_32_bits_is_refused_for_that(mode: str) -> None:
    content = encode(Image.new(mode, (8, 8)), "TIFF")
    with pytest.raises(ImageError, match="colours of a kind that is not supported"):
        decode(content, ImageSpec(8, 8), MAX_PIXELS)
