"""PNG files: their chunks and metadata (W3C PNG, third edition).

A decoder does a fixed amount of work for every chunk, however short. A PNG of a few megabytes can contain so
many compressed profiles that it takes minutes, within any limit of pixels.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from offramp.errors import ImageError
from offramp.images import exif
from offramp.images.source import MAX_PROFILE_BYTES, Source

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# A file of 160 MB with data chunks of the usual 8 kB. Other chunks are few.
MAX_DATA_CHUNKS = 20_000
MAX_OTHER_CHUNKS = 200
_IMAGE_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT"})
_DATA_CHUNKS = frozenset({b"IDAT", b"fcTL", b"fdAT"})
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
# Bytes of a transparent colour, by colour type.
_TRANSPARENT_BYTES = {0: 2, 2: 6}
_PALETTE = 3
_MIN_GAMMA_DIFFERENCE = 0.01


@dataclass(frozen=True)
class Chunk:
    """A chunk of type `kind`, from `start` to `end`, with its length and its checksum."""

    kind: bytes
    start: int
    end: int


def chunks(content: bytes) -> list[Chunk]:
    """The chunks of the PNG file `content` before its end; the last may be incomplete.

    Raises ImageError if there are more than encoders write.
    """
    found: list[Chunk] = []
    at = len(SIGNATURE)
    data = 0
    while at + 8 <= len(content):
        kind = content[at + 4 : at + 8]
        if kind == b"IEND":
            break
        data += kind in _DATA_CHUNKS
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        found.append(Chunk(kind, at, end))
        if data > MAX_DATA_CHUNKS or len(found) - data > MAX_OTHER_CHUNKS:
            raise ImageError(
                f"The image has more than {MAX_DATA_CHUNKS} chunks of data or "
                f"{MAX_OTHER_CHUNKS} others."
            )
        at = end
    return found


def read(content: bytes) -> Source:
    """Separate the image of a PNG file from its metadata. Of an animation, it is the default image.

    Raises ImageError if the file is crafted to be slow.
    """
    found = chunks(content)
    kept = [SIGNATURE]
    orientation, profile, gamma = exif.UPRIGHT, None, None
    colour_type = content[25:26]
    for chunk in found:
        is_clear = chunk.kind == b"tRNS" and _is_transparency(_data(content, chunk), colour_type)
        if is_clear or chunk.kind in _IMAGE_CHUNKS:
            kept.append(content[chunk.start : chunk.end])
        elif chunk.kind == b"eXIf" and orientation == exif.UPRIGHT:
            orientation = exif.orientation(_data(content, chunk))
        elif chunk.kind == b"iCCP" and profile is None:
            profile = _profile(_data(content, chunk))
        elif chunk.kind == b"gAMA":
            gamma = _gamma(_data(content, chunk))
    if profile is not None or any(chunk.kind == b"sRGB" for chunk in found):
        gamma = None
    if len(kept) > len(found):  # nothing was left out
        return Source(content, orientation, profile, gamma)
    return Source(b"".join([*kept, _END]), orientation, profile, gamma)


def _data(content: bytes, chunk: Chunk) -> bytes:
    """The data of a chunk; empty if its checksum is wrong."""
    body = content[chunk.start + 4 : chunk.end - 4]
    checksum = content[chunk.end - 4 : chunk.end]
    return body[4:] if checksum == struct.pack(">I", zlib.crc32(body)) else b""


def _gamma(data: bytes) -> float | None:
    """The gamma of a gAMA chunk; None if it is about that of sRGB, as in browsers, or makes no sense."""
    gamma = int.from_bytes(data, "big") / 100_000
    if len(data) != 4 or not 0.1 <= gamma <= 10 or abs(gamma - 1 / 2.2) < _MIN_GAMMA_DIFFERENCE:
        return None
    return gamma


def _is_transparency(data: bytes, colour_type: bytes) -> bool:
    """Whether `data` is a tRNS chunk for the colour type: one colour, or values for a palette."""
    if not data or not colour_type:
        return False
    if colour_type[0] == _PALETTE:
        return len(data) <= 256
    return len(data) == _TRANSPARENT_BYTES.get(colour_type[0])


def _profile(data: bytes) -> bytes | None:
    """The profile of an iCCP chunk: a name, a zero, the method, and the profile compressed."""
    _, _, packed = data.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacker.eof else None
