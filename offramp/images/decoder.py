"""Decodes image files to the pixels that a network takes, for training and serving alike."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from offramp.errors import ImageError
from offramp.images import exif, gif, heif, jpeg
from offramp.images.colour import gamma_to_srgb
from offramp.images.formats import HEIC, NAMES, Format, recognise
from offramp.images.modes import colours, on_white, scale_transparency
from offramp.images.source import Source
from offramp.out_of_memory import is_out_of_memory

# JPEG's own limit. Pillow needs memory and time for every row, however short, so an image one pixel
# wide could cost gigabytes within the limit of pixels.
MAX_SIDE = 65_535
# An image decoded at a reduced scale stays this many times larger than the result on each side, so that
# the final, antialiased resize determines its quality: on photographs the result is less than one of 255
# levels from that at full scale (tests/offramp/images/test_reduced_scale.py).
MIN_DRAFT_SCALE = 1.5
REDUCING_GAP = 3.0
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

Pixels = NDArray[np.uint8]
# (left, top, right, bottom) in pixels.
Box = tuple[float, float, float, float]


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
    """Decode an image file to uint8 [height, width, 3] sRGB of the size in `spec`.

    JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF where Pillow has it, and HEIC with the extra `heif`: the content
    decides. Of several frames the first is read. EXIF orientation and the embedded colour profile are
    applied, and transparent images are composited on white. Broken metadata are ignored. An image that has
    the size already is not resampled. Raises ImageError if the file has another format, is damaged or
    incomplete, is crafted to be slow, or has more than `max_pixels` pixels or 65535 on one side,
    MemoryError if there is too little memory for it.
    """
    return _opaque(_fit(*_decoded(content, spec, max_pixels), spec))


def decode_whole(content: bytes, max_pixels: int) -> Pixels:
    """Decode an image file at its own size, else as `decode` does: uint8 [H, W, 3] sRGB."""
    image, _ = _decoded(content, None, max_pixels)
    return _opaque(image)


def image_size(content: bytes, max_pixels: int) -> tuple[int, int]:
    """The width and height in pixels that the header of an image file states, before EXIF turns it.

    Nothing is decoded. Raises ImageError as `decode` does, as far as the header shows it.
    """
    form = _format(content)
    with _explained(form, max_pixels):
        opened, _, _ = _open(content, form)
        with opened as image:
            _check_size(image, max_pixels)
            return image.size


def _decoded(content: bytes, spec: ImageSpec | None, max_pixels: int) -> tuple[Image.Image, Box]:
    """The upright image as RGB or RGBA, which may be reduced as far as `spec` permits, and the part of it
    that the file's image covers."""
    form = _format(content)
    with _explained(form, max_pixels):
        return _read(content, form, spec, max_pixels)


def _format(content: bytes) -> Format:
    """The format of an image file. Raises ImageError if it is not read."""
    if not content:
        raise ImageError("The image is empty.")
    form = recognise(content)
    if isinstance(form, str):
        raise ImageError(_not_read(form))
    return form


@contextmanager
def _explained(form: Format, max_pixels: int) -> Iterator[None]:
    """Whatever Pillow raises becomes an ImageError, or a MemoryError."""
    _permit(max_pixels)
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"The image has more than {max_pixels} pixels.") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        # Pillow's decoders raise a dozen types on damaged files (SyntaxError, struct.error …).
        raise ImageError(f"The {form.name} file is damaged or incomplete.") from error


def _permit(max_pixels: int) -> None:
    """Raise Pillow's own limit, which holds for the process, where a caller permits more.

    The server's settings permit no more than Pillow, so in a server the limit stays.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and max_pixels > 2 * limit:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _opaque(image: Image.Image) -> Pixels:
    return np.asarray(on_white(image) if image.mode == "RGBA" else image)


def _not_read(what: str) -> str:
    """The sentence for content that is `what`, which is empty if its format is unknown."""
    if what:
        return f"This is {what}; only {NAMES} and, with offramp[heif], HEIC files are read."
    return f"The image is in an unknown format; it is not a {NAMES} or HEIC file."


def _read(
    content: bytes, form: Format, spec: ImageSpec | None, max_pixels: int
) -> tuple[Image.Image, Box]:
    """The upright image as RGB or RGBA, and the part of it that the file's image covers. It may be
    smaller than that, but not smaller than needed."""
    opened, source, whole = _open(content, form)
    with opened as image:
        _check_size(image, max_pixels)
        orientation, profile = source.orientation, source.profile
        if form.read is heif.read:
            # Pillow reports the properties that turn the image as EXIF.
            orientation = exif.orientation(image.info.get("exif") or b"")
            profile = image.info.get("icc_profile")
        box: Box = (0.0, 0.0, *image.size)
        if whole is None:
            image.load()
        else:
            if spec is not None:
                swapped = orientation in SWAPPED
                drafted = image.draft(None, _min_draft_size(image.size, spec, swapped))
                if drafted is not None:
                    # libjpeg rounds a reduced size up: the last row and column may be half outside.
                    box = drafted[1]
            jpeg.load(whole, image)
        if form.name == "PNG":
            scale_transparency(image, depth=source.content[24])
        shown = _inside(image, gif.frame(source.content)) if form.name == "GIF" else image
        transpose = UPRIGHT.get(orientation)
        upright = shown
        if transpose is not None:
            upright, box = shown.transpose(transpose), _transposed(box, shown.size, transpose)
        coloured = colours(upright, profile)
        return coloured if source.gamma is None else gamma_to_srgb(coloured, source.gamma), box


def _open(content: bytes, form: Format) -> tuple[ImageFile.ImageFile, Source, jpeg.Jpeg | None]:
    """The image, of which only the header is read, its metadata, and the parts of a JPEG file."""
    whole = None
    if form.read is None:
        whole, source = jpeg.read(content)
    else:
        source = form.read(content)
    if form.name == HEIC:
        return heif.open_heic(source.content), source, whole
    outline = io.BytesIO(source.content if whole is None else whole.outline)
    return Image.open(outline, formats=(form.pillow,)), source, whole


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"The image has {width} x {height} pixels; at most {max_pixels} are allowed."
        )
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"The image has {width} x {height} pixels; a side may have at most {MAX_SIDE}."
        )


def _min_draft_size(size: tuple[int, int], spec: ImageSpec, swapped: bool) -> tuple[int, int]:
    """The smallest (width, height), in the file's orientation, to which decoding may reduce `size`."""
    target = (spec.height, spec.width) if swapped else (spec.width, spec.height)
    if spec.resize == "stretch":
        return math.ceil(MIN_DRAFT_SCALE * target[0]), math.ceil(MIN_DRAFT_SCALE * target[1])
    scale = MIN_DRAFT_SCALE * max(target[0] / size[0], target[1] / size[1])
    return math.ceil(scale * size[0]), math.ceil(scale * size[1])


def _transposed(box: Box, size: tuple[int, int], transpose: Image.Transpose) -> Box:
    """Where `box` of an image of `size` is after `transpose`."""
    left, top, right, bottom = box
    if transpose in (
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE,
    ):
        left, right = size[0] - right, size[0] - left
    if transpose in (
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.ROTATE_180,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
    ):
        top, bottom = size[1] - bottom, size[1] - top
    swaps = transpose in {UPRIGHT[orientation] for orientation in SWAPPED}
    return (top, left, bottom, right) if swaps else (left, top, right, bottom)


def _inside(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """The image, clear outside its first frame, as in browsers. Pillow fills with the first colour."""
    if frame == (0, 0, *image.size):
        return image
    clear = Image.new("RGBA", image.size)
    clear.paste(image.convert("RGBA").crop(frame), frame[:2])
    return clear


def _fit(image: Image.Image, box: Box, spec: ImageSpec) -> Image.Image:
    size = (spec.width, spec.height)
    if image.size == size:
        return image
    width, height = box[2] - box[0], box[3] - box[1]
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if spec.resize == "center_crop":
        # Cropping the visible part and scaling it equals scaling the image and cropping.
        scale = max(size[0] / width, size[1] / height)
        width, height = min(size[0] / scale, width), min(size[1] / scale, height)
    left, top = middle[0] - width / 2, middle[1] - height / 2
    return image.resize(
        size,
        Image.Resampling.BILINEAR,
        box=(left, top, min(left + width, image.width), min(top + height, image.height)),
        reducing_gap=REDUCING_GAP,
    )
