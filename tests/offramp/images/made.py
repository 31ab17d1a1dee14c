"""Image files for the tests of reading: an image, and what can be put around it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from offramp.errors import ImageError
from offramp.images import ImageSpec, decode

MAX_PIXELS = 10_000_000
SIDES = (8, 32, 224)
# Every format that Pillow writes and reads, with its options here.
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


def scene(width: int = 48, height: int = 32, seed: int = 1) -> Image.Image:
    """Soft noise: no two corners are alike, and every format keeps it within a few levels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **{**FORMATS[kind], **options})
    return content.getvalue()


def read(content: bytes, width: int = 48, height: int = 32) -> NDArray[np.int64]:
    """The pixels as they are read at their own size, as int."""
    return decode(content, ImageSpec(height, width), MAX_PIXELS).astype(int)


def verdicts(content: bytes) -> set[str]:
    """What becomes of the file at several input sizes: "read", or the sentence."""
    found = set()
    for side in SIDES:
        for resize in ("center_crop", "stretch"):
            try:
                decode(content, ImageSpec(side, side, resize), MAX_PIXELS)
                found.add("read")
            except ImageError as error:
                found.add(str(error))
    return found


def exif_block(orientation: int) -> bytes:
    """The TIFF structure of an EXIF block with an orientation and nothing else."""
    return struct.pack("<4sIHHHIHHI", b"II*\0", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def in_png(content: bytes, *chunks: bytes) -> bytes:
    """The PNG file with chunks behind its header."""
    return content[:33] + b"".join(chunks) + content[33:]


def in_jpeg(content: bytes, *parts: tuple[int, bytes]) -> bytes:
    """The JPEG file with segments of these markers and data behind its start."""
    segments = (struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in parts)
    return content[:2] + b"".join(segments) + content[2:]


def in_webp(content: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """The WebP file with chunks at its end, and a header that announces them."""
    width, height = Image.open(io.BytesIO(content)).size
    extended = struct.pack("<4sI", b"VP8X", 10) + bytes([0x2C, 0, 0, 0])
    extended += struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    more = (
        struct.pack("<4sI", kind, len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    body = b"WEBP" + extended + content[12:] + b"".join(more)
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def in_gif(content: bytes, *extensions: bytes) -> bytes:
    """The GIF file with extensions behind its colours."""
    at = 13 + (3 << ((content[10] & 7) + 1))
    return content[:at] + b"".join(extensions) + content[at:]
