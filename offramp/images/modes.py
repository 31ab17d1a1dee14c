"""Pillow's modes of colour as RGB or RGBA of sRGB, with transparency."""

from __future__ import annotations

import numpy as np
from PIL import Image

from offramp.errors import ImageError
from offramp.images.colour import profile_space, to_srgb

# Pillow multiplies grey levels of fewer than eight bits by these factors.
GREY_SCALE = {2: 85, 4: 17}
DEEP_GREYS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"})


def colours(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image as RGB or RGBA of sRGB. A profile of other colours than the image's is ignored."""
    if image.mode in DEEP_GREYS:
        image = _eight_bits(image)
    if image.mode not in MODES:
        raise ImageError(f"The image has colours of a kind that is not supported ({image.mode}).")
    if image.mode == "La":
        image = image.convert("LA")
    profile = profile or b""
    space, is_ink = profile_space(profile), image.mode == "CMYK"
    if is_ink and space == "CMYK":
        image = to_srgb(image, profile)
    elif image.mode in ("1", "L", "LA") and space == "L":
        mode = "LA" if image.has_transparency_data else "L"
        image = to_srgb(image if image.mode == mode else image.convert(mode), profile)
    mode = "RGBA" if image.has_transparency_data else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    return to_srgb(image, profile) if space == "RGB" and not is_ink else image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as L or LA. Pillow's conversion clips at 255 instead of scaling."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def scale_transparency(image: Image.Image, depth: int) -> None:
    """Convert the transparent value of a PNG to eight bits, as Pillow does with the pixels but not with
    this value; `depth` is the bit depth of the file."""
    transparent = image.info.get("transparency")
    if image.mode == "L" and depth in GREY_SCALE and isinstance(transparent, int):
        image.info["transparency"] = transparent * GREY_SCALE[depth]
    elif image.mode == "RGB" and depth == 16 and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def on_white(image: Image.Image) -> Image.Image:
    """An RGBA image as RGB, where it is clear white."""
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
