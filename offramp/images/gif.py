"""GIF files: the first frame, without what is around it (GIF89a)."""

from __future__ import annotations

import struct

from offramp.errors import ImageError
from offramp.images.source import DamagedError, Source

# Of 255 bytes each, before the first frame and in it. Decoders read them one by one.
MAX_BLOCKS = 200_000
_HEADER = 13
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, b";"
_GRAPHIC_CONTROL = 0xF9


def read(content: bytes) -> Source:
    """The first frame of a GIF file with the header, its colours and its transparency, and nothing else.

    Raises ImageError if the file has too many blocks, DamagedError if it has no frame.
    """
    at = _HEADER + _colours(content[10])
    header = content[:at]
    control = b""
    left = MAX_BLOCKS
    while content[at] == _EXTENSION:
        end, left = _blocks(content, at + 2, left)
        # The data of a graphic control extension are one block of four bytes.
        if content[at + 1] == _GRAPHIC_CONTROL and content[at + 2] == 4 and end == at + 8:
            control = content[at:end]
        at = end
    if content[at] != _IMAGE:
        raise DamagedError
    data = at + 10 + _colours(content[at + 9])
    end, _ = _blocks(content, data + 1, left)
    return Source(header + control + content[at:end] + _TRAILER)


def _colours(flags: int) -> int:
    """The bytes of the colour table that the flags announce."""
    return int(3 << ((flags & 7) + 1)) if flags & 0x80 else 0


def _blocks(content: bytes, at: int, left: int) -> tuple[int, int]:
    """Where the blocks from `at` end, behind the empty one or with the file, and how many are `left`."""
    while at < len(content) and (size := content[at]):
        at += 1 + size
        left -= 1
        if left < 0:
            raise ImageError(f"The image has more than {MAX_BLOCKS} blocks.")
    return min(at + 1, len(content)), left


def frame(content: bytes) -> tuple[int, int, int, int]:
    """The left, upper, right and lower edge of the frame of a GIF file that `read` returned."""
    at = _HEADER + _colours(content[10])
    if content[at] == _EXTENSION:
        at += 8
    left, top, width, height = struct.unpack_from("<4H", content, at + 1)
    return left, top, left + width, top + height
