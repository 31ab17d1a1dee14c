"""WebP files: their chunks and metadata (RFC 9649)."""

from __future__ import annotations

import struct

from offramp.errors import ImageError
from offramp.images import exif
from offramp.images.source import MAX_PROFILE_BYTES, DamagedError, Source, ends_in_zeros

# An animation of half an hour.
MAX_CHUNKS = 50_000
_HEADER = 12
_IMAGES = frozenset({b"VP8 ", b"VP8L", b"ANMF"})
_BEFORE_IMAGE = frozenset({b"VP8X", b"ANIM", b"ALPH"})
# In the first byte of VP8X: profile, EXIF and XMP.
_METADATA_FLAGS = 0x20 | 0x08 | 0x04


def read(content: bytes) -> Source:
    """Separate the image of a WebP file from its metadata. Of an animation, it is the first frame.

    Raises ImageError if the file has too many chunks, DamagedError if it has no image or is filled up with
    zeros.
    """
    kept: list[bytes] = []
    image: bytes | None = None
    orientation, profile = exif.UPRIGHT, None
    at = _HEADER
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(content):
            break
        kind, size = struct.unpack_from("<4sI", content, at)
        start, end = at, at + 8 + size + size % 2
        data = content[start + 8 : start + 8 + size] if kind not in _IMAGES else b""
        at = end
        if kind in _IMAGES and image is None:
            image = content[start:end]
        elif kind in _BEFORE_IMAGE and image is None:
            kept.append(content[start:end])
        elif kind == b"EXIF" and orientation == exif.UPRIGHT:
            orientation = exif.orientation(data)
        elif kind == b"ICCP" and profile is None and size <= MAX_PROFILE_BYTES:
            profile = data
    else:
        raise ImageError(f"The image has more than {MAX_CHUNKS} chunks.")
    if image is None or ends_in_zeros(image):
        raise DamagedError
    if kept and kept[0].startswith(b"VP8X") and len(kept[0]) > 8:
        flags = bytes([kept[0][8] & ~_METADATA_FLAGS])
        kept[0] = kept[0][:8] + flags + kept[0][9:]
    body = b"".join([b"WEBP", *kept, image])
    return Source(struct.pack("<4sI", b"RIFF", len(body)) + body, orientation, profile)
