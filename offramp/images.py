"""From an image file's bytes to the pixels a network takes, the same in every wing."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from offramp.errors import ImageError
from offramp.image_structure import check_structure

FORMATS = ("JPEG", "PNG", "WEBP")
# JPEG's own limit. Pillow spends memory and time on every line, however short, so a picture one
# pixel wide could cost gigabytes within the limit of pixels.
MAX_SIDE = 65_535
# What is decoded at a reduced scale stays this many times larger than the result in each
# direction, so that the final, antialiased resize decides what it looks like.
RESERVE = 2
REDUCING_GAP = 3.0
ORIENTATION_TAG = 0x0112
# How EXIF's orientations are put upright, and which of them swap width and height.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = frozenset({5, 6, 7, 8})
# What Pillow multiplies grey levels of less than eight bits by.
GREY_SCALE = {2: 85, 4: 17}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSpec:
    """The picture that is wanted, in pixels.

    center_crop: the file's is scaled until it covers this one and what sticks out is cut evenly;
    stretch: it is scaled to this one, whatever its shape.
    """

    height: int
    width: int
    resize: Literal["center_crop", "stretch"] = "center_crop"


def decode(content: bytes, spec: ImageSpec, max_pixels: int) -> Pixels:
    """Decode a JPEG, PNG or WebP file to uint8 [height, width, 3] RGB of the size `spec` asks for.

    EXIF orientation is applied, transparency is laid on white. A picture that has the size already
    is not resampled. Raises ImageError if it is of another format, damaged, made to be slow
    (`image_structure`), or has more than `max_pixels` pixels or 65535 on one side.
    """
    if not content:
        raise ImageError("The image is empty.")
    check_structure(content)
    try:
        image = _open(content, spec, max_pixels)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("The image is not a JPEG, PNG or WebP file.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"The image has more than {max_pixels} pixels.") from error
    except Exception as error:
        # Pillow's decoders raise a dozen types on damaged files (SyntaxError, struct.error …).
        raise ImageError("The image is damaged or incomplete.") from error
    fitted = _fit(image, spec)
    return np.asarray(_on_white(fitted) if fitted.mode == "RGBA" else fitted)


def _open(content: bytes, spec: ImageSpec, max_pixels: int) -> Image.Image:
    """The upright picture as RGB or RGBA, perhaps smaller than stored, but never than needed."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                f"The image has {width} x {height} pixels; at most {max_pixels} are allowed."
            )
        if max(width, height) > MAX_SIDE:
            raise ImageError(
                f"The image has {width} x {height} pixels; a side may have at most {MAX_SIDE}."
            )
        if image.format in ("JPEG", "MPO"):
            turned = image.getexif().get(ORIENTATION_TAG) in TURNED
            image.draft(None, _scaled_size(image.size, spec, turned))
        image.load()
        if image.format == "PNG":
            _scale_clear(image, depth=content[24])
        # ImageOps.exif_transpose writes all of the EXIF anew, which fails on tags that do not matter here.
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
        return _to_eight_bit_colour(image if turn is None else image.transpose(turn))


def _scaled_size(size: tuple[int, int], spec: ImageSpec, turned: bool) -> tuple[int, int]:
    """The least (width, height), in the file's orientation, that decoding may reduce `size` to."""
    needed = (spec.height, spec.width) if turned else (spec.width, spec.height)
    if spec.resize == "stretch":
        return RESERVE * needed[0], RESERVE * needed[1]
    scale = max(needed[0] / size[0], needed[1] / size[1])
    return math.ceil(RESERVE * scale * size[0]), math.ceil(RESERVE * scale * size[1])


def _scale_clear(image: Image.Image, depth: int) -> None:
    """Have the PNG's transparent value in eight bits, as Pillow gives the pixels; `depth` is the file's."""
    clear = image.info.get("transparency")
    if image.mode == "L" and depth in GREY_SCALE and isinstance(clear, int):
        image.info["transparency"] = clear * GREY_SCALE[depth]
    elif image.mode == "RGB" and depth == 16 and isinstance(clear, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _to_eight_bit_colour(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        # Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        clear = image.info.get("transparency")
        if clear is None:
            return grey.convert("RGB")
        alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, alpha)).convert("RGBA")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    size = (spec.width, spec.height)
    if image.size == size:
        return image
    width, height = float(image.width), float(image.height)
    if spec.resize == "center_crop":
        # Cutting the part that will be seen, then scaling it, equals scaling to cover and cutting.
        scale = max(size[0] / width, size[1] / height)
        width, height = min(size[0] / scale, width), min(size[1] / scale, height)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return image.resize(
        size,
        Image.Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
        reducing_gap=REDUCING_GAP,
    )


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
