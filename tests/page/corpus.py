"""Odd image files: each format with each profile, orientation, depth and damage that it can have."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from offramp.images import exif
from tests import profiles
from tests.offramp.images.made import (
    encode,
    exif_block,
    in_jpeg,
    in_png,
    in_webp,
    png_chunk,
    scene,
)

PROFILES = {
    "none": b"",
    "srgb": profiles.srgb(),
    "p3": profiles.display_p3(),
    "adobe": profiles.adobe_rgb(),
    "prophoto": profiles.prophoto(),
    "junk": b"junk" * 50,
}
ORIENTATIONS = range(1, 9)
JUNK = b"\x01junk\xff\x00 that means nothing\xfe"


@dataclass(frozen=True)
class OddFile:
    """A file. `shown` is the file that Chromium shows in its place: it does not show TIFF and AVIF with a
    broken profile, does not turn WebP, and stretches the alpha of AVIF. `damaged` says that a part of the
    image is missing."""

    name: str
    content: bytes
    shown: bytes | None = None
    damaged: bool = False


def corpus() -> Iterator[OddFile]:
    """All files, of a few kilobytes each."""
    yield from _profiles_and_orientations()
    yield from _depths()
    yield from _broken_metadata()
    yield from _damage()


def _turned(kind: str, orientation: int, profile: bytes) -> tuple[bytes, bytes | None]:
    """A file of this kind, and what a browser shows in its place."""
    original, options = scene(), {"icc_profile": profile} if profile else {}
    turned = Image.Exif()
    turned[0x0112] = orientation
    block = exif_block(orientation)
    if kind == "JPEG":
        content = encode(original, kind, quality=90, progressive=orientation % 2 == 0, **options)
        return in_jpeg(content, (0xE1, exif.PREFIX + block)), None
    png = in_png(encode(original, "PNG", **options), png_chunk(b"eXIf", block))
    if kind == "PNG":
        return png, None
    if kind == "AVIF":
        plain = encode(original, kind, exif=turned.tobytes())
        content = encode(original, kind, exif=turned.tobytes(), **options)
        return content, plain if profile == PROFILES["junk"] else None
    if kind == "TIFF":
        return encode(original, kind, exif=turned.tobytes(), compression="tiff_lzw", **options), png
    chunks = [(b"EXIF", block)]
    if profile:
        chunks.append((b"ICCP", profile))
    return in_webp(encode(original, "WEBP"), *chunks), png


def _profiles_and_orientations() -> Iterator[OddFile]:
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
        for name, profile in PROFILES.items():
            for orientation in ORIENTATIONS:
                content, shown = _turned(kind, orientation, profile)
                yield OddFile(f"{kind} {name} {orientation}", content, shown)


def _depths() -> Iterator[OddFile]:
    original = scene()
    grey, clear = original.convert("L"), original.copy()
    clear.putalpha(Image.linear_gradient("L").resize(original.size))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for name, image in {
        "bilevel": original.convert("1"),
        "grey": grey,
        "grey and alpha": clear.convert("LA"),
        "palette": original.quantize(100),
        "few colours": original.quantize(4),
        "alpha": clear,
        "16 bits": deep,
    }.items():
        png = encode(image, "PNG")
        yield OddFile(f"PNG {name}", png)
        if name != "16 bits":
            yield OddFile(f"WEBP {name}", encode(image.convert("RGBA"), "WEBP"))
            options = {"quality": 100, "subsampling": "4:4:4"}
            content = encode(image.convert("RGBA"), "AVIF", **options)
            yield OddFile(f"AVIF {name}", content, png if "alpha" in name else None)
        if image.mode in ("1", "L", "P"):
            yield OddFile(f"GIF {name}", encode(image, "GIF"))
            yield OddFile(f"BMP {name}", encode(image, "BMP"))
        for compression in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate"):
            content = encode(image, "TIFF", compression=compression)
            yield OddFile(f"TIFF {name} {compression}", content, png)
    yield OddFile("GIF transparent", encode(original.quantize(16), "GIF", transparency=3))
    yield OddFile("PNG grey profile", encode(grey, "PNG", icc_profile=profiles.grey(1.8)))
    for gamma in (35_000, 45_455, 100_000):
        chunk = png_chunk(b"gAMA", gamma.to_bytes(4, "big"))
        yield OddFile(f"PNG gamma {gamma}", in_png(encode(original, "PNG"), chunk))
    yield from _png_depths()
    for mode in ("L", "RGB", "CMYK"):
        for name, options in {
            "baseline": {},
            "progressive": {"progressive": True},
            "intervals": {"restart_marker_blocks": 3},
            "4:2:0": {"subsampling": 2},
            "coarse": {"quality": 20},
        }.items():
            yield OddFile(f"JPEG {mode} {name}", encode(original.convert(mode), "JPEG", **options))
    inks = encode(original.convert("CMYK"), "JPEG", icc_profile=profiles.cmyk())
    yield OddFile("JPEG CMYK profile", inks)


def _png_depths() -> Iterator[OddFile]:
    """Kinds of PNG that Pillow does not write: depths of channels, and interlaced rows."""
    rng = np.random.default_rng(5)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    for colour, depths in {
        0: (1, 2, 4, 8, 16),
        2: (8, 16),
        3: (1, 2, 4, 8),
        4: (8, 16),
        6: (8, 16),
    }.items():
        for depth in depths:
            for interlaced in (0, 1):
                data = b""
                for width, height in _passes(32, 24) if interlaced else [(32, 24)]:
                    size = -(-width * channels[colour] * depth // 8)
                    rows = rng.integers(0, 256, (height, size), dtype=np.uint8)
                    data += b"".join(b"\0" + row.tobytes() for row in rows)
                header = struct.pack(">IIBBBBB", 32, 24, depth, colour, 0, 0, interlaced)
                palette = (
                    rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes()
                    if colour == 3
                    else b""
                )
                parts = [png_chunk(b"IHDR", header)]
                parts += [png_chunk(b"PLTE", palette)] if palette else []
                parts += [png_chunk(b"IDAT", zlib.compress(data)), png_chunk(b"IEND", b"")]
                name = f"PNG colour {colour} depth {depth} interlaced {interlaced}"
                yield OddFile(name, b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _passes(width: int, height: int) -> list[tuple[int, int]]:
    """The sizes of the seven reduced images of Adam7."""
    starts_and_steps = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    return [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in starts_and_steps]


def _broken_metadata() -> Iterator[OddFile]:
    original = scene()
    jpeg, png = encode(original, "JPEG"), encode(original, "PNG")
    for marker in (0xE1, 0xE2, 0xED, 0xEF, 0xFE):
        yield OddFile(f"JPEG junk in {marker:x}", in_jpeg(jpeg, (marker, JUNK)))
    yield OddFile("JPEG junk in EXIF", in_jpeg(jpeg, (0xE1, exif.PREFIX + JUNK)))
    for kind in (b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"tIME"):
        yield OddFile(f"PNG junk in {kind.decode()}", in_png(png, png_chunk(kind, JUNK)))
    webp = encode(original, "WEBP")
    for kind in (b"EXIF", b"XMP ", b"JUNK"):
        yield OddFile(f"WEBP junk in {kind.decode()}", in_webp(webp, (kind, JUNK)))


def _damage() -> Iterator[OddFile]:
    original = scene(120, 80)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        content = encode(original.quantize(100) if kind == "GIF" else original, kind)
        for share in (0.2, 0.5, 0.8):
            cut = content[: int(len(content) * share)]
            yield OddFile(f"{kind} cut at {share}", cut, damaged=True)
            if kind == "JPEG":
                yield OddFile(f"{kind} cut at {share}, ended", cut + b"\xff\xd9", damaged=True)
