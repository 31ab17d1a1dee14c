"""Images and PNG files of chosen headers and pixels, and the input that they are decoded for."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

from exports.bundle.manifest import InputSpec

SPEC = InputSpec(height=16, width=16)
LIMIT = 1_000_000


def flat(mode: str, colour: object, size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new(mode, size, colour)


def noise(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 10)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (ihdr, idat, b"IEND")
    )


def png_of(bits: int, colour: int, row: bytes, clear: bytes = b"") -> bytes:
    """A PNG of 16 x 16 pixels whose rows are `row`, of a kind that Pillow does not write; `clear` is its tRNS
    chunk, the transparent colour."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 16, 16, bits, colour, 0, 0, 0)
    idat = b"IDAT" + zlib.compress((b"\0" + row) * 16)
    trns = (b"tRNS" + clear,) if clear else ()
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (ihdr, *trns, idat, b"IEND")
    )
