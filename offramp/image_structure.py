"""Detects images that are crafted to be slow to decode, from the structure of the file.

A decoder does a fixed amount of work for every marker, chunk or scan, however short. A progressive
JPEG of a few megabytes can contain so many scans that decoding takes hours. A PNG of that size can
contain so many compressed profiles that it takes minutes. Both can be within any limit of pixels.
"""

from __future__ import annotations

import re

from offramp.errors import ImageError

# Encoders write about ten scans, at most about twenty.
MAX_SCANS = 32
# Cameras write a few dozen at most; a large colour profile needs some more.
MAX_SEGMENTS = 1000
# A file of 160 MB with data chunks of the usual 8 kB. Other chunks are few.
MAX_DATA_CHUNKS = 20_000
MAX_OTHER_CHUNKS = 200

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
_DATA_CHUNKS = frozenset({b"IDAT", b"fcTL", b"fdAT"})
# Not a marker: 0xFF00 is a data byte, 0xFFD0 to 0xFFD7 are restarts, and repeated 0xFF is padding.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_TEM, _EOI, _SOS = 0x01, 0xD9, 0xDA


def check_structure(content: bytes) -> None:
    """Raise ImageError if the JPEG or PNG file `content` has more parts than encoders write.

    It does not check whether the file is valid. Files of other formats are accepted.
    """
    if content.startswith(JPEG_SIGNATURE):
        _check_jpeg(content)
    elif content.startswith(PNG_SIGNATURE):
        _check_png(content)


def _check_jpeg(content: bytes) -> None:
    """Walk the segments up to the end of the image (ITU-T T.81, annex B)."""
    at = len(JPEG_SIGNATURE)
    segments = scans = padding = 0
    while (match := _NEXT_MARKER.search(content, at)) is not None:
        # Decoders read padding between the segments before the first scan byte by byte.
        padding += match.start() - at if scans == 0 else 0
        marker, at = content[match.start() + 1], match.end()
        if marker == _EOI:
            return
        segments += 1
        scans += marker == _SOS
        if segments > MAX_SEGMENTS or padding > MAX_SEGMENTS:
            raise ImageError(f"The image has more than {MAX_SEGMENTS} segments.")
        if scans > MAX_SCANS:
            raise ImageError(f"The image has more than {MAX_SCANS} scans.")
        if marker != _TEM:
            at += int.from_bytes(content[at : at + 2], "big")


def _check_png(content: bytes) -> None:
    """Walk the chunks up to the end of the image (W3C PNG, section 5.3)."""
    at = len(PNG_SIGNATURE)
    data = other = 0
    while at + 8 <= len(content):
        kind = content[at + 4 : at + 8]
        if kind == b"IEND":
            return
        if kind in _DATA_CHUNKS:
            data += 1
        else:
            other += 1
        if data > MAX_DATA_CHUNKS or other > MAX_OTHER_CHUNKS:
            raise ImageError(
                f"The image has more than {MAX_DATA_CHUNKS} chunks of data or "
                f"{MAX_OTHER_CHUNKS} others."
            )
        at += 12 + int.from_bytes(content[at : at + 4], "big")
