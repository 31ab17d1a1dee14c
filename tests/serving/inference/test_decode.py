from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from exports.bundle.manifest import InputSpec
from serving.inference.engine import decode
from tests.serving.conftest import encode
from tests.serving.inference.images import LIMIT, SPEC, flat, noise, png_of


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {})]
)
def test_an_image_of_the_input_size_is_unchanged(kind: str, options: dict) -> None:
    image = noise(16, 16)
    found = decode(encode(image, kind, **options), SPEC, LIMIT)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(image))


def test_a_jpeg_of_the_input_size_is_only_decoded() -> None:
    content = encode(noise(16, 16), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decode(content, SPEC, LIMIT), expected)


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (flat("L", 77), "PNG", (77, 77, 77)),
        (flat("L", 77), "JPEG", (77, 77, 77)),
        (flat("1", 1), "PNG", (255, 255, 255)),
        (flat("I;16", 0x8000), "PNG", (128, 128, 128)),
        (flat("P", 0), "PNG", (0, 0, 0)),
        (flat("RGBA", (200, 0, 0, 0)), "PNG", (255, 255, 255)),
        (flat("RGBA", (0, 0, 0, 51)), "PNG", (204, 204, 204)),
        (flat("RGBA", (10, 20, 30, 255)), "WEBP", (10, 20, 30)),
        (flat("LA", (0, 0)), "PNG", (255, 255, 255)),
        (flat("CMYK", (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_colour_mode_becomes_the_visible_colours(
    image: Image.Image, kind: str, expected: tuple[int, int, int]
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(encode(image, kind, **options), SPEC, LIMIT)
    assert found.shape == (16, 16, 3)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=2)


@pytest.mark.parametrize(
    ("bits", "colour", "pixel", "expected"),
    [
        (16, 2, struct.pack(">3H", 0x1000, 0x8000, 0xFFFF), (16, 128, 255)),
        (16, 6, struct.pack(">4H", 0x1000, 0x8000, 0xFFFF, 0xFFFF), (16, 128, 255)),
        (16, 6, struct.pack(">4H", 0x1000, 0x8000, 0xFFFF, 0), (255, 255, 255)),
        (16, 4, struct.pack(">2H", 0x4000, 0xFFFF), (64, 64, 64)),
        (16, 4, struct.pack(">2H", 0x4000, 0), (255, 255, 255)),
    ],
    ids=["rgb", "rgba", "clear rgba", "grey and alpha", "clear grey"],
)
def test_channels_of_sixteen_bits_are_scaled(
    bits: int, colour: int, pixel: bytes, expected: tuple[int, int, int]
) -> None:
    found = decode(png_of(bits, colour, pixel * 16), SPEC, LIMIT)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1)


@pytest.mark.parametrize(("bits", "row"), [(1, b"\xff" * 2), (2, b"\xff" * 4), (4, b"\xff" * 8)])
def test_pixels_of_less_than_eight_bits_are_scaled(bits: int, row: bytes) -> None:
    assert (decode(png_of(bits, 0, row), SPEC, LIMIT) == 255).all()
    assert (decode(png_of(bits, 0, b"\0" * len(row)), SPEC, LIMIT) == 0).all()


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_is_read_as_in_browsers(adobe: bool) -> None:
    # Photoshop stores inverted values, marked by an APP14 segment; all other software does the same.
    content = encode(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=100)
    at = content.index(b"Adobe") - 4
    assert content[at : at + 2] == b"\xff\xee"
    if not adobe:
        content = content[:at] + content[at + 16 :]
    found = decode(content, SPEC, LIMIT)
    np.testing.assert_allclose(found, np.broadcast_to((255, 0, 0), found.shape), atol=3)


def test_a_half_transparent_palette_is_composed_on_white() -> None:
    image = flat("P", 0)
    image.putpalette([0, 0, 0])
    content = encode(image, transparency=bytes([51]))
    assert (decode(content, SPEC, LIMIT) == 204).all()


def test_a_transparent_grey_is_composed_on_white() -> None:
    assert (decode(encode(flat("L", 7), transparency=7), SPEC, LIMIT) == 255).all()


@pytest.mark.parametrize(
    ("mode", "colour", "transparent"), [("RGB", (7, 8, 9), (7, 8, 9)), ("I;16", 700, 700)]
)
def test_a_transparent_colour_is_composed_on_white(
    mode: str, colour: object, transparent: object
) -> None:
    content = encode(flat(mode, colour), transparency=transparent)
    assert (decode(content, SPEC, LIMIT) == 255).all()


@pytest.mark.parametrize(
    ("bits", "colour", "pixels", "clear"),
    [
        (2, 0, b"\x55" * 4, b"\0\x01"),
        (4, 0, b"\x55" * 8, b"\0\x05"),
        (16, 2, b"\x12\x34\x23\x45\x34\x56" * 16, b"\x12\x34\x23\x45\x34\x56"),
    ],
)
def test_the_transparent_colour_has_the_bit_depth_of_the_file(
    bits: int, colour: int, pixels: bytes, clear: bytes
) -> None:
    assert (decode(png_of(bits, colour, pixels, clear), SPEC, LIMIT) == 255).all()
    other = clear[:-1] + bytes([clear[-1] ^ 2])
    if bits < 16:
        assert (decode(png_of(bits, colour, pixels, other), SPEC, LIMIT) < 255).all()


def test_malformed_other_tags_do_not_prevent_the_orientation() -> None:
    tags = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0) + struct.pack("<HHI", 0x128, 2, 2) + b"2\0\0\0"
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + tags + bytes(4)
    image = noise(16, 24)
    content = encode(image, "WEBP", lossless=True, exif=exif)
    rotated = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(decode(content, InputSpec(height=24, width=16), LIMIT), rotated)


def test_a_transparent_webp_is_composed_on_white() -> None:
    content = encode(flat("RGBA", (200, 0, 0, 0)), "WEBP", lossless=True)
    assert (decode(content, SPEC, LIMIT) == 255).all()


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    first, second = flat("RGB", (10, 20, 30)), flat("RGB", (200, 0, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encode(first, kind, save_all=True, append_images=[second], **options)
    found = decode(content, SPEC, LIMIT)
    np.testing.assert_array_equal(found, np.asarray(first))


def test_a_transparent_palette_colour_is_composed_on_white() -> None:
    image = flat("P", 0)
    image.putpalette([10, 20, 30])
    content = encode(image, transparency=0)
    assert (decode(content, SPEC, LIMIT) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_camera_is_applied(kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (160, 160), "white")
    upright.paste("black", (0, 0, 80, 80))
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in undo.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encode(stored, kind, exif=exif), SPEC, LIMIT)
    dark = found[..., 0] < 128
    assert dark[:7, :7].all()
    assert not dark[9:].any()
    assert not dark[:, 9:].any()


def test_a_rotated_jpeg_is_cropped_after_rotation() -> None:
    stored = Image.new("RGB", (300, 100), "white")
    stored.paste("black", (100, 0, 200, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(encode(stored, "JPEG", exif=exif), InputSpec(height=8, width=16), LIMIT)
    assert found.shape == (8, 16, 3)
    assert (found < 16).all()


def test_center_crop_keeps_the_middle_and_the_aspect_ratio() -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("black", (100, 0, 200, 100))
    found = decode(encode(image), SPEC, LIMIT)
    assert (found[:, 1:-1] == 0).all()
    assert (found < 64).all()


def test_stretch_keeps_the_whole_image() -> None:
    image = Image.new("RGB", (300, 100), "white")
    image.paste("black", (150, 0, 300, 100))
    found = decode(encode(image), InputSpec(height=16, width=16, resize="stretch"), LIMIT)
    assert (found[:, :7] == 255).all()
    assert (found[:, 9:] == 0).all()


def test_a_jpeg_decoded_at_reduced_size_looks_like_a_full_one() -> None:
    smooth = noise(9, 12).resize((640, 480), Image.Resampling.BICUBIC)
    by_jpeg = decode(encode(smooth, "JPEG", quality=95), SPEC, LIMIT).astype(int)
    by_png = decode(encode(smooth), SPEC, LIMIT).astype(int)
    assert np.abs(by_jpeg - by_png).mean() < 2


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 5), (17, 16)])
def test_an_image_of_any_size_gets_the_input_size(size: tuple[int, int]) -> None:
    assert decode(encode(noise(*size)), SPEC, LIMIT).shape == (16, 16, 3)


def test_a_rotated_16_bit_image_is_scaled_and_upright() -> None:
    rows = np.repeat(np.array([0xFFFF, 0x4000], dtype=np.uint16), 8)
    stored = Image.fromarray(np.tile(rows[:, None], (1, 16)))
    exif = Image.Exif()
    exif[0x0112] = 3
    found = decode(encode(stored, exif=exif), SPEC, LIMIT)
    assert (found[:8] == 0x40).all()
    assert (found[8:] == 0xFF).all()
