"""Decodes image files to the pixels that a network takes, for training and serving alike."""

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
# JPEG's own limit. Pillow needs memory and time for every row, however short, so an image one pixel
# wide could cost gigabytes within the limit of pixels.
MAX_SIDE = 65_535
# An image decoded at a reduced scale stays this many times larger than the result on each side, so that
# the final, antialiased resize determines its quality.
MIN_DRAFT_SCALE = 2
REDUCING_GAP = 3.0
ORIENTATION_TAG = 0x0112
# The transpose that undoes each EXIF orientation, and the orientations that swap width and height.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPED = frozenset({5, 6, 7, 8})
# Pillow multiplies grey levels of fewer than eight bits by these factors.
GREY_SCALE = {2: 85, 4: 17}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageSpec:
    """The size of the decoded image in pixels, and how an image of another shape is fitted to it.

    center_crop: the image is scaled until it covers this size, and the rest is cropped evenly;
    stretch: it is scaled to this size, and its aspect ratio may change.
    """

    height: int
    width: int
    resize: Literal["center_crop", "stretch"] = "center_crop"


def decode(content: bytes, spec: ImageSpec, max_pixels: int) -> Pixels:
    """Decode a JPEG, PNG or WebP file to uint8 [height, width, 3] RGB of the size in `spec`.

    EXIF orientation is applied, and transparent images are composited on white. An image that has the
    size already is not resampled. Raises ImageError if the file has another format, is damaged or
    crafted to be slow (`image_structure`), or has more than `max_pixels` pixels or 65535 on one side.
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
    """The upright image as RGB or RGBA. It may be smaller than the file's, but not smaller than needed."""
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
            swapped = image.getexif().get(ORIENTATION_TAG) in SWAPPED
            image.draft(None, _min_draft_size(image.size, spec, swapped))
        image.load()
        if image.format == "PNG":
            _scale_transparency(image, depth=content[24])
        # ImageOps.exif_transpose rewrites all EXIF tags, and fails on some that are irrelevant here.
        transpose = UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
        return _to_eight_bit_colour(image if transpose is None else image.transpose(transpose))


def _min_draft_size(size: tuple[int, int], spec: ImageSpec, swapped: bool) -> tuple[int, int]:
    """The smallest (width, height), in the file's orientation, to which decoding may reduce `size`."""
    target = (spec.height, spec.width) if swapped else (spec.width, spec.height)
    if spec.resize == "stretch":
        return MIN_DRAFT_SCALE * target[0], MIN_DRAFT_SCALE * target[1]
    scale = MIN_DRAFT_SCALE * max(target[0] / size[0], target[1] / size[1])
    return math.ceil(scale * size[0]), math.ceil(scale * size[1])


def _scale_transparency(image: Image.Image, depth: int) -> None:
    """Convert the transparent value of a PNG to eight bits, as Pillow does with the pixels but not with
    this value; `depth` is the bit depth of the file."""
    transparent = image.info.get("transparency")
    if image.mode == "L" and depth in GREY_SCALE and isinstance(transparent, int):
        image.info["transparency"] = transparent * GREY_SCALE[depth]
    elif image.mode == "RGB" and depth == 16 and isinstance(transparent, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _to_eight_bit_colour(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":
        # Pillow's conversion clips at 255 instead of scaling.
        values = np.asarray(image)
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        transparent = image.info.get("transparency")
        if transparent is None:
            return grey.convert("RGB")
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, alpha)).convert("RGBA")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _fit(image: Image.Image, spec: ImageSpec) -> Image.Image:
    size = (spec.width, spec.height)
    if image.size == size:
        return image
    width, height = float(image.width), float(image.height)
    if spec.resize == "center_crop":
        # Cropping the visible part and scaling it equals scaling the image and cropping.
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
