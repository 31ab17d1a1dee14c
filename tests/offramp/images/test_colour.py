"""Embedded colour profiles: pixels as a colour-managed viewer shows them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from offramp.images.colour import to_srgb
from tests import profiles
from tests.offramp.images.made import encode, in_png, png_chunk, read, scene

LEVELS = 4  # of 255, on average: an image is stored in eight bits twice
RGB_PROFILES = {
    "Display P3": profiles.display_p3(),
    "Adobe RGB": profiles.adobe_rgb(),
    "ProPhoto RGB": profiles.prophoto(),
}


def muted() -> Image.Image:
    """Colours that every space has."""
    return scene().point(lambda value: 60 + value // 2)


def in_space(image: Image.Image, profile: bytes, mode: str = "RGB") -> Image.Image:
    """The image with its sRGB colours written as `profile` has them."""
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), target, outputMode=mode
    )
    assert converted is not None
    return converted


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("space", RGB_PROFILES)
def test_an_image_in_another_space_has_the_pixels_that_it_has_in_srgb(
    kind: str, space: str
) -> None:
    profile = RGB_PROFILES[space]
    stored = in_space(muted(), profile)
    shift = np.abs(np.asarray(stored).astype(int) - np.asarray(muted())).mean()
    found = read(encode(stored, kind, icc_profile=profile))
    assert np.abs(found - np.asarray(muted())).mean() < min(LEVELS, shift)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_grey_image_is_converted_by_its_grey_profile(kind: str) -> None:
    linear = Image.linear_gradient("L").resize((48, 32))
    found = read(encode(linear, kind, icc_profile=profiles.grey(1.0)))
    share = np.asarray(linear) / 255
    expected = 255 * np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)
    assert np.abs(found - expected[..., None]).mean() < LEVELS


def test_a_grey_image_is_converted_by_a_profile_of_colours() -> None:
    grey = scene().convert("L")
    profile = profiles.prophoto()
    found = read(encode(grey, "JPEG", icc_profile=profile))
    coloured = read(encode(grey.convert("RGB"), "JPEG", icc_profile=profile))
    assert np.abs(found - coloured).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_are_converted_by_their_profile(kind: str) -> None:
    inks = Image.new("CMYK", (48, 32))
    inks.paste((0, 0, 0, 128), (0, 0, 48, 16))
    found = read(encode(inks, kind, icc_profile=profiles.cmyk()))
    # Paper reflects 0.9 of the light, and half of the black ink takes away a density of 0.8.
    light = 0.9 * 10 ** np.array([-1.6 * 128 / 255, 0])
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(found[4, 24] - expected[0]).max() <= LEVELS
    assert np.abs(found[28, 24] - expected[1]).max() <= LEVELS


def test_transparency_stays_beside_a_profile() -> None:
    stored = in_space(muted(), profiles.prophoto())
    stored.putalpha(Image.linear_gradient("L").resize(stored.size))
    plain = muted()
    plain.putalpha(stored.getchannel("A"))
    found = read(encode(stored, "PNG", icc_profile=profiles.prophoto()))
    assert np.abs(found - read(encode(plain, "PNG"))).mean() < LEVELS


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("RGB", profiles.cmyk()), ("RGB", profiles.grey()), ("CMYK", profiles.prophoto())],
)
def test_a_profile_of_other_colours_is_ignored(mode: str, profile: bytes) -> None:
    image = scene().convert(mode)
    np.testing.assert_array_equal(
        read(encode(image, "JPEG", icc_profile=profile)), read(encode(image, "JPEG"))
    )


def test_an_image_in_srgb_is_not_converted() -> None:
    image = scene()
    assert to_srgb(image, profiles.srgb()) is image


@pytest.mark.parametrize("cut", [0, 20, 130, 300, -40])
def test_a_broken_profile_is_ignored(cut: int) -> None:
    content = encode(scene(), "PNG", icc_profile=profiles.display_p3()[:cut])
    np.testing.assert_array_equal(read(content), np.asarray(scene()))


@pytest.mark.parametrize(
    ("gamma", "others", "expected"),
    [
        (100_000, [], 188),
        (45_455, [], 128),
        (100_000, [(b"sRGB", b"\0")], 128),
        (0, [], 128),
        (2**31, [], 128),
    ],
)
def test_the_gamma_of_a_png_without_a_profile_is_undone(
    gamma: int, others: list[tuple[bytes, bytes]], expected: int
) -> None:
    content = encode(Image.new("RGB", (48, 32), (128, 128, 128)), "PNG")
    chunks = [(b"gAMA", gamma.to_bytes(4, "big")), *others]
    found = read(in_png(content, *(png_chunk(*chunk) for chunk in chunks)))
    assert (found == expected).all()


def test_a_large_jpeg_is_converted_at_its_reduced_size() -> None:
    image = scene(960, 640).point(lambda value: 60 + value // 2)
    stored = in_space(image, profiles.prophoto())
    found = read(encode(stored, "JPEG", icc_profile=profiles.prophoto()))
    assert np.abs(found - read(encode(image, "JPEG"))).mean() < LEVELS
