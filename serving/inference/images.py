"""Decoding an image file to the input of stage 1."""

from __future__ import annotations

from exports.bundle.manifest import InputSpec
from offramp.errors import ImageError
from offramp.images import ImageSpec, Pixels
from offramp.images import decode as decode_image
from serving.errors import InvalidImageError


def decode(content: bytes, spec: InputSpec, max_pixels: int) -> Pixels:
    """`offramp.images.decode` for a network's input; raises InvalidImageError."""
    try:
        return decode_image(content, ImageSpec(spec.height, spec.width, spec.resize), max_pixels)
    except ImageError as error:
        raise InvalidImageError(str(error)) from error
