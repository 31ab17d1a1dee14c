"""BMP files: which of them are slow to decode."""

from __future__ import annotations

import struct

from offramp.errors import ImageError
from offramp.images.source import Source

# Pillow decodes run-length encoding in Python, pixel by pixel.
MAX_RUN_LENGTH_PIXELS = 2_000_000
_INFO_HEADER = 40
_RUN_LENGTH = (1, 2)


def read(content: bytes) -> Source:
    """The BMP file as it is; it has no metadata that a decoder reads.

    Raises ImageError if it is run-length encoded and has too many pixels or bytes.
    """
    (header,) = struct.unpack_from("<I", content, 14)
    if header >= _INFO_HEADER:
        width, height, _, _, compression = struct.unpack_from("<iiHHI", content, 18)
        pixels = abs(width * height)
        if compression in _RUN_LENGTH and max(pixels, len(content) // 4) > MAX_RUN_LENGTH_PIXELS:
            raise ImageError(
                f"The BMP file is run-length encoded and has more than {MAX_RUN_LENGTH_PIXELS} pixels."
            )
    return Source(content)
