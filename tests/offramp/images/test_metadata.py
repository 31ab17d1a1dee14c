"""Broken metadata never refuse an image that is whole, and only EXIF turns it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image

from offramp.images import exif
from tests.offramp.images.made import (
    encode,
    exif_block,
    in_gif,
    in_jpeg,
    in_png,
    in_webp,
    png_chunk,
    read,
    scene,
)
from tests.profiles import display_p3

JUNK = b"\x01junk\xff\x00 that means nothing\xfe"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
RAW_PROFILE = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      9\nnot hexadecimal\n")
ADOBE_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def broken() -> dict[str, tuple[bytes, bytes]]:
    """Files with metadata that are broken or must be ignored, and the same images without."""
    image = scene()
    jpeg, png, webp = (encode(image, kind) for kind in ("JPEG", "PNG", "WEBP"))
    gif = encode(image.quantize(64), "GIF")
    tiff, avif = encode(image, "TIFF"), encode(image, "AVIF")
    cases = {
        "png, eXIf of junk": (in_png(png, png_chunk(b"eXIf", JUNK)), png),
        "png, half an eXIf": (in_png(png, png_chunk(b"eXIf", exif_block(6)[:15])), png),
        "png, raw profile": (in_png(png, png_chunk(b"zTXt", RAW_PROFILE)), png),
        "png, text that is not compressed": (in_png(png, png_chunk(b"zTXt", b"a\0\0" + JUNK)), png),
        "png, huge text": (
            in_png(png, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9_000_000)))),
            png,
        ),
        "png, wrong checksum": (in_png(png, png_chunk(b"tEXt", b"a\0b")[:-1] + b"\0"), png),
        "png, iCCP of junk": (in_png(png, png_chunk(b"iCCP", b"a\0\0" + zlib.compress(JUNK))), png),
        "png, iCCP not compressed": (in_png(png, png_chunk(b"iCCP", b"a\0\0" + JUNK)), png),
        "png, wrong sizes": (
            in_png(
                png, *(png_chunk(k, b"\1") for k in (b"gAMA", b"cHRM", b"pHYs", b"sBIT", b"tIME"))
            ),
            png,
        ),
        "png, transparency of the wrong size": (in_png(png, png_chunk(b"tRNS", b"\1")), png),
        "png, unusual name of a chunk": (in_png(png, png_chunk(b"x\xe9!y", b"")), png),
        "png, xmp": (
            in_png(png, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
            png,
        ),
        "png, no end": (png[:-12], png),
        "webp, EXIF of junk": (in_webp(webp, (b"EXIF", JUNK)), webp),
        "webp, ICCP of junk": (in_webp(webp, (b"ICCP", JUNK)), webp),
        "webp, xmp": (in_webp(webp, (b"XMP ", XMP)), webp),
        "webp, a chunk longer than the file": (in_webp(webp, (b"EXIF", JUNK))[:-9], webp),
        "gif, comment without an end": (in_gif(gif, b"!\xfe\x01a\0"), gif),
        "gif, odd control block": (in_gif(gif, b"!\xf9\x01\x01\0"), gif),
        "gif, xmp": (in_gif(gif, b"!\xff\x0bXMP DataXMP" + bytes([len(XMP)]) + XMP + b"\0"), gif),
        "gif, no end": (gif[:-1], gif),
        "avif, EXIF of junk": (encode(image, "AVIF", exif=b"Exif\0\0MM\0*" + JUNK), avif),
        "avif, xmp": (encode(image, "AVIF", xmp=XMP), avif),
        "avif, profile of junk": (encode(image, "AVIF", icc_profile=JUNK), avif),
        "tiff, xmp": (encode(image, "TIFF", tiffinfo={700: XMP}), tiff),
        "tiff, profile of junk": (encode(image, "TIFF", icc_profile=JUNK), tiff),
        "tiff, EXIF outside the file": (encode(image, "TIFF", tiffinfo={34665: 2**31}), tiff),
        "tiff, odd resolution": (encode(image, "TIFF", tiffinfo={282: 0, 296: 77}), tiff),
    }
    for name, segments in {
        "EXIF of junk": [(0xE1, exif.PREFIX + JUNK)],
        "EXIF of nothing": [(0xE1, exif.PREFIX)],
        "xmp": [(0xE1, ADOBE_XMP + XMP)],
        "half a JFIF": [(0xE0, b"JFIF\0")],
        "half an Adobe": [(0xEE, b"Adobe")],
        "half a profile": [(0xE2, b"ICC_PROFILE\0\1\2" + display_p3()[:99])],
        "profile without numbers": [(0xE2, b"ICC_PROFILE\0")],
        "profile of junk": [(0xE2, b"ICC_PROFILE\0\1\1" + JUNK)],
        "Photoshop's blocks": [(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x02ab")],
        "index of junk": [(0xE2, b"MPF\0" + JUNK)],
        "comment": [(0xFE, JUNK)],
    }.items():
        cases[f"jpeg, {name}"] = (in_jpeg(jpeg, *segments), jpeg)
    cases["jpeg, no end"] = (jpeg[:-2], jpeg)
    cases["jpeg, zeros behind the end"] = (jpeg + bytes(500), jpeg)
    return cases


BROKEN = broken()


@pytest.mark.parametrize("name", BROKEN)
def test_a_whole_image_is_read_whatever_its_metadata(name: str) -> None:
    content, clean = BROKEN[name]
    np.testing.assert_array_equal(read(content), read(clean))


TURNED = {
    "JPEG": lambda content, block: in_jpeg(content, (0xE1, exif.PREFIX + block)),
    "PNG": lambda content, block: in_png(content, png_chunk(b"eXIf", block)),
    "WEBP": lambda content, block: in_webp(content, (b"EXIF", block)),
}


@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("junk", [b"", b"\0" * 300, b"\xff" * 300])
def test_exif_turns_the_image_whatever_follows_it(kind: str, junk: bytes) -> None:
    content = encode(scene(), kind)
    turned = TURNED[kind](content, exif_block(6) + junk)
    expected = np.rot90(read(content), -1)
    np.testing.assert_array_equal(read(turned, 32, 48), expected)


def test_exif_counts_beside_xmp_that_says_otherwise() -> None:
    content = encode(scene(), "JPEG")
    both = in_jpeg(content, (0xE1, ADOBE_XMP + XMP), (0xE1, exif.PREFIX + exif_block(3)))
    np.testing.assert_array_equal(read(both), np.rot90(read(content), 2))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    content = encode(scene(), "JPEG")
    turned = in_jpeg(content, (0xE1, exif.PREFIX + exif_block(orientation)))
    np.testing.assert_array_equal(read(turned), read(content))


def test_a_frame_smaller_than_the_canvas_is_on_white() -> None:
    canvas = scene().quantize(16)
    content = bytearray(encode(canvas, "GIF"))
    content[6:10] = (60).to_bytes(2, "little") + (40).to_bytes(2, "little")
    found = read(bytes(content), 60, 40)
    np.testing.assert_array_equal(found[:32, :48], np.asarray(canvas.convert("RGB")))
    assert (found[32:] == 255).all()
    assert (found[:, 48:] == 255).all()


def test_only_the_first_directory_of_a_tiff_is_read() -> None:
    first, second = scene(), Image.new("1", (20_000, 20_000))
    content = encode(first, "TIFF", compression="tiff_lzw", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read(content), np.asarray(first))
