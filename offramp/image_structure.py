"""Files made to be slow: told from their structure, before a decoder sees them.

A decoder does a fixed amount of work for every marker, chunk or scan, however short. A progressive
JPEG of a few megabytes can hold so many scans that decoding it takes hours, and a PNG of the same
size so many compressed profiles that it takes minutes, both well within any limit of pixels.
"""

from __future__ import annotations

import re

from offramp.errors import ImageError

# Encoders write about ten scans, the most thorough ones some twenty.
MAX_SCANS = 32
# Cameras write a few dozen at most; a large colour profile is spread over some more.
MAX_SEGMENTS = 1000
# Data chunks of the usual 8 kB, of a file of 160 MB; other chunks number a handful.
MAX_DATA_CHUNKS = 20_000
MAX_OTHER_CHUNKS = 200

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
_DATA_CHUNKS = frozenset({b"IDAT", b"fcTL", b"fdAT"})
# 0xFF00 is a byte of the data, 0xFFD0 to 0xFFD7 only restart it, and a row of 0xFF is filling.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_TEM, _EOI, _SOS = 0x01, 0xD9, 0xDA


def check_structure(content: bytes) -> None:
    """Raise ImageError if the JPEG or PNG file `content` has more parts than any honest one.

    Whether it is valid is the decoder's business; files of other kinds pass.
    """
    if content.startswith(JPEG_SIGNATURE):
        _check_jpeg(content)
    elif content.startswith(PNG_SIGNATURE):
        _check_png(content)


def _check_jpeg(content: bytes) -> None:
    """Walk the segments up to the end of the image (ITU-T T.81, annex B)."""
    at = len(JPEG_SIGNATURE)
    segments = scans = filling = 0
    while (found := _NEXT_MARKER.search(content, at)) is not None:
        # What lies between the segments before the first scan is read byte by byte.
        filling += found.start() - at if scans == 0 else 0
        marker, at = content[found.start() + 1], found.end()
        if marker == _EOI:
            return
        segments += 1
        scans += marker == _SOS
        if segments > MAX_SEGMENTS or filling > MAX_SEGMENTS:
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
