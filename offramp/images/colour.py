"""Embedded colour profiles: pixels as a colour-managed viewer shows them, in sRGB."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

# Transforms that are kept: cameras and phones use the same few profiles.
MAX_TRANSFORMS = 16
# A profile whose colours differ less from sRGB is sRGB; rounding makes up to two levels.
MAX_SRGB_DIFFERENCE = 2
# The colour space of the profile's device: ICC.1:2022, section 7.2.6.
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_LIGHTNESS_LEVELS = 256
_CUBE_LEVELS = 8


def profile_space(profile: bytes) -> str | None:
    """Pillow's mode for the colours that a profile describes; None if it has none for them."""
    return _SPACES.get(profile[16:20])


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image of mode RGB, RGBA, L, LA or CMYK from the colours of `profile` to sRGB.

    The result is RGB, or RGBA if there is transparency; the image itself if the profile is sRGB or broken.
    """
    has_alpha = image.mode in ("RGBA", "LA")
    mode = "L" if image.mode in ("L", "LA") else image.mode
    transform = _transform(profile, "RGB" if mode == "RGBA" else mode)
    if transform is None:
        return image
    if not has_alpha:
        return transform.apply(image)
    alpha = image.getchannel("A")
    colours = image.convert("RGB") if mode == "RGBA" else image.getchannel("L")
    converted = transform.apply(colours)
    converted.putalpha(alpha)
    return converted


def gamma_to_srgb(image: Image.Image, gamma: float) -> Image.Image:
    """Convert an image of mode RGB or RGBA, whose values are light to the power of `gamma`, to sRGB."""
    light = (np.arange(256) / 255) ** (1 / gamma)
    # IEC 61966-2-1.
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table = np.round(255 * encoded).astype(int).tolist()
    return image.point(table * 3 + (list(range(256)) if image.mode == "RGBA" else []))


@lru_cache(maxsize=MAX_TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from `profile` to sRGB; None if it would change nothing or the profile is broken."""
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.ImageCmsProfile(BytesIO(_srgb())),
            mode,
            "RGB",
            # Browsers use a profile's first table, which is the perceptual one.
            ImageCms.Intent.PERCEPTUAL,
            # Otherwise LittleCMS makes paper white.
            flags=ImageCms.Flags.NOWHITEONWHITEFIXUP,
        )
    except (OSError, ValueError, ImageCms.PyCMSError):
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


@lru_cache(maxsize=1)
def _srgb() -> bytes:
    """sRGB as a profile of version 2, for which LittleCMS does not move the black point, as in browsers."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:8] + bytes([2, 0x40, 0, 0]) + profile[12:]


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether greys and a cube of colours stay what they are."""
    greys = np.repeat(np.arange(_LIGHTNESS_LEVELS, dtype=np.uint8)[:, None], 3, axis=1)
    levels = np.linspace(0, 255, _CUBE_LEVELS).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    colours = np.concatenate([greys, cube])[None]
    found = np.asarray(transform.apply(Image.fromarray(colours)))
    difference = np.abs(found.astype(int) - colours.astype(int))
    return bool(difference.max() <= MAX_SRGB_DIFFERENCE)
