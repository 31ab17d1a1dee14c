"""Which format a file has, told by its content alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from PIL import features

from offramp.images import bmp, gif, heif, jpeg, png, tiff, webp
from offramp.images.source import Source

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
# JPEG has a way of its own: its decoder is fed piece by piece.
JPEG, HEIC = "JPEG", "HEIC"
# Of files in folders of images. What a named file is, its content decides.
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
    | {".heic", ".heif"}
)
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Files that are sent by mistake, or that other software shows as images. Longer signatures come first.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"II\xbc\x01", "a JPEG XR file"),
    (b"\0\0\x01\0", "an icon file"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF file"),
    (b"%!PS", "a PostScript file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"RIFF", "an AVI, WAV or other RIFF file"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska file"),
)
_MARKUP = re.compile(rb"\s*<(?:\?xml|!doctype|html|svg|!--)", re.IGNORECASE)


@dataclass(frozen=True)
class Format:
    """A format that can be read: its `name` in sentences, Pillow's name, and the reader of its metadata."""

    name: str
    pillow: str
    read: Callable[[bytes], Source] | None


FORMATS = {
    "JPEG": Format(JPEG, "JPEG", None),
    "PNG": Format("PNG", "PNG", png.read),
    "WebP": Format("WebP", "WEBP", webp.read),
    "GIF": Format("GIF", "GIF", gif.read),
    "BMP": Format("BMP", "BMP", bmp.read),
    "TIFF": Format("TIFF", "TIFF", tiff.read),
    "AVIF": Format("AVIF", "AVIF", heif.read),
    "HEIC": Format(HEIC, "HEIF", heif.read),
}
NAMES = ", ".join(
    name for name in FORMATS if name != HEIC and (name != "AVIF" or features.check("avif"))
)


def recognise(content: bytes) -> Format | str:
    """The format of `content` if it can be read, else what it is, as in "a PDF file".

    The empty string stands for content of no known format.
    """
    if content.startswith(jpeg.SIGNATURE):
        return FORMATS["JPEG"]
    if content.startswith(png.SIGNATURE):
        return FORMATS["PNG"]
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return FORMATS["WebP"]
    if content.startswith((b"GIF87a", b"GIF89a")):
        return FORMATS["GIF"]
    if content.startswith(b"BM") and len(content) > 26:
        return FORMATS["BMP"]
    if content.startswith(_TIFF_SIGNATURES):
        return FORMATS["TIFF"]
    if content[4:8] == b"ftyp":
        return _of_brands(content)
    if _MARKUP.match(content):
        is_svg = b"<svg" in content[:1000].lower()
        return "an SVG file" if is_svg else "an HTML or XML page"
    return next((what for start, what in _OTHERS if content.startswith(start)), "")


def _of_brands(content: bytes) -> Format | str:
    """The format of a file of boxes, by the brands that it says it is compatible with (ISO/IEC 14496-12)."""
    size = int.from_bytes(content[:4], "big")
    box = content[8 : min(size, 256)]
    brands = {box[:4], *(box[at : at + 4] for at in range(8, len(box) - 3, 4))}
    if brands & AVIF_BRANDS:
        return FORMATS["AVIF"] if features.check("avif") else "an AVIF file"
    return FORMATS["HEIC"] if brands & HEIC_BRANDS else "a video or audio file"
