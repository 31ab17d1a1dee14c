"""AVIF and HEIC files: ISO/IEC 23008-12."""

from __future__ import annotations

import io
import re
from functools import cache

from PIL import AvifImagePlugin, Image, ImageFile

from offramp.errors import ImageError, MissingExtraError
from offramp.extras import needs_extra
from offramp.images.source import DamagedError, Source, ends_in_zeros

# Decoding has threads of its own; the server decodes several images at once.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# An entry of the table of items (infe): version 2 or 3, flags, number, protection, and the item's type.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{5}|\x03.{7})..)Exif", re.DOTALL)


def read(content: bytes) -> Source:
    """The file with its EXIF items renamed: they do not turn the image, and broken ones would refuse it.

    The image is turned by the properties `irot` and `imir`, as in browsers. Raises DamagedError if the file
    is filled up with zeros.
    """
    if ends_in_zeros(content):
        raise DamagedError
    return Source(_EXIF_ITEM.sub(rb"\1free", content))


def open_heic(content: bytes) -> ImageFile.ImageFile:
    """Open a HEIC file. Raises ImageError without pillow-heif, the extra `heif`."""
    try:
        _register_opener()
    except MissingExtraError as error:
        raise ImageError(
            "This is a HEIC file; install offramp[heif] to read it, or send a JPEG file."
        ) from error
    return Image.open(io.BytesIO(content), formats=("HEIF",))


@cache
def _register_opener() -> None:
    """Make Pillow read HEIC files. Raises MissingExtraError."""
    with needs_extra("heif", "pillow-heif"):
        import pillow_heif
    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
