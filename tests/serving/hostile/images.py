"""Hostile images: of another size than declared, endless, broken, or of two formats at once."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.serving.conftest import encode

PNG = b"\x89PNG\r\n\x1a\n"
SIDE = 8


def noise(side: int = SIDE, seed: int = 0) -> Image.Image:
    """Noise, which does not compress."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def honest() -> dict[str, bytes]:
    """One small file of each format and kind of encoding."""
    image = noise()
    return {
        "png": encode(image),
        "jpeg": encode(image, "JPEG"),
        "progressive jpeg": encode(image, "JPEG", progressive=True),
        "lossless webp": encode(image, "WEBP", lossless=True),
        "lossy webp": encode(image, "WEBP"),
        "gif": encode(image.quantize(64), "GIF"),
        "bmp": encode(image, "BMP"),
        "tiff": encode(image, "TIFF", compression="tiff_lzw"),
        "avif": encode(image, "AVIF"),
    }


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: list[bytes], before: bytes = b"") -> bytes:
    """A PNG of 24-bit colour with these IDAT chunks, and others before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG + header + before + b"".join(chunk(b"IDAT", d) for d in data) + chunk(b"IEND")


def segment(marker: int, data: bytes) -> bytes:
    """A JPEG segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def in_jpeg(part: bytes) -> bytes:
    """A JPEG with `part` as its first segments."""
    content = encode(noise(), "JPEG")
    return content[:2] + part + content[2:]


def exif(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """An EXIF block whose first directory has these (tag, type, count, value)."""
    directory = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    head = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries))
    return head + directory + struct.pack(">I", following)


def bmp(header: bytes, data: bytes) -> bytes:
    """A BMP with this header of information, colours included."""
    offset = 14 + len(header)
    return struct.pack("<2sIII", b"BM", offset + len(data), 0, offset) + header + data


def _run_lengths(width: int, height: int) -> bytes:
    """The header of a run-length encoded BMP of two colours."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 2, 0)
    return header + b"\0\0\0\0\xff\xff\xff\0"


def tiff(tags: dict[int, int | tuple[int, int]], extra: int = 0, data: bytes = bytes(200)) -> bytes:
    """A TIFF of 24-bit colour with these tags, and `extra` others. The data begin at 8; a tag of two numbers
    has an offset and a count."""
    entries = {258: 8, 259: 1, 262: 2, 277: 3, 278: 8, **tags}
    table = b""
    for tag, value in sorted({**entries, **{60_000 - n: 1 for n in range(extra)}}.items()):
        at, count = value if isinstance(value, tuple) else (value, 1)
        table += struct.pack("<HHII", tag, 4, count, at)
    count = len(entries) + extra
    first = 8 + len(data)
    return (
        struct.pack("<2sHI", b"II", 42, first) + data + struct.pack("<H", count) + table + bytes(4)
    )


def _rows(side: int) -> bytes:
    return zlib.compress((b"\0" + b"\7" * (3 * side)) * side)


def _with_size(content: bytes, marker: bytes, size: bytes, offset: int) -> bytes:
    at = content.index(marker) + offset
    return content[:at] + size + content[at + len(size) :]


def _webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _animated(kind: str, frames: int) -> bytes:
    first, *rest = (noise(seed=seed) for seed in range(frames))
    return encode(first, kind, save_all=True, append_images=rest)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that would need much memory."""
    files = honest()
    yield "png header", png(60_000, 60_000, [_rows(SIDE)])
    yield "png at its own limit", png(2**31 - 1, 2**31 - 1, [_rows(SIDE)])
    for kind in ("jpeg", "progressive jpeg"):
        marker = b"\xff\xc2" if "progressive" in kind else b"\xff\xc0"
        yield f"{kind} header", _with_size(files[kind], marker, b"\xff\xff\xff\xff", 5)
    yield "webp header", _with_size(files["lossy webp"], b"\x9d\x01\x2a", b"\xff\x3f\xff\x3f", 3)
    yield (
        "lossless webp header",
        _with_size(files["lossless webp"], b"VP8L", b"\xff\xff\xff\x0f", 9),
    )
    canvas = b"VP8X" + struct.pack("<IB3x", 10, 0) + b"\xff\xff\xff" * 2
    yield "webp canvas", _webp(canvas, files["lossless webp"][12:])
    yield "gif canvas", _with_size(files["gif"], b"GIF8", b"\xff" * 4, 6)
    yield "gif frame", _with_size(files["gif"], b",\0\0\0\0", b"\xff" * 4, 5)
    yield "bmp header", _with_size(files["bmp"], b"BM", b"\0\xff\0\0" * 2, 18)
    yield "avif header", _with_size(files["avif"], b"ispe", b"\0\0\xff\xff" * 2, 8)
    yield "tiff header", tiff({256: 60_000, 257: 60_000, 273: 8, 279: 100})
    tiles = {256: 8, 257: 8, 322: 60_000, 323: 60_000, 324: 8, 325: 100}
    yield "tiff of one huge tile", tiff(tiles)
    zeros = zlib.compress(bytes(50_000_000), 9)
    yield "png with far too much data", png(SIDE, SIDE, [zeros])
    yield "png as large as allowed", png(1000, 1000, [zlib.compress(bytes(1000 * 3001), 9)])
    for kind in (b"zTXt", b"iCCP"):
        yield (
            f"png {kind.decode()} bomb",
            png(SIDE, SIDE, [_rows(SIDE)], chunk(kind, b"a\0\0" + zeros)),
        )
    text = chunk(b"iTXt", b"a\0\1\0\0\0" + zeros)
    yield "png iTXt bomb", png(SIDE, SIDE, [_rows(SIDE)], text)


def sloths() -> Iterator[tuple[str, bytes]]:
    """Files of under a megabyte that would take minutes or hours to decode."""
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))
    yield "png of profiles", png(SIDE, SIDE, [_rows(SIDE)], profile * 900)
    yield "png of chunks", png(SIDE, SIDE, [_rows(SIDE)], chunk(b"prVt") * 80_000)
    yield "png of data chunks", png(SIDE, SIDE, [b""] * 80_000 + [_rows(SIDE)])
    large = encode(Image.new("RGB", (1000, 1000)), "JPEG", progressive=True)
    scan = large[large.rindex(b"\xff\xda") : -2]
    yield "jpeg of scans", large[:-2] + scan * (900_000 // len(scan)) + large[-2:]
    hidden = segment(0xFE, b"\xff\xd9")
    scans = (hidden + scan) * (900_000 // len(hidden + scan))
    yield "jpeg of scans behind a false end", large[:-2] + scans + large[-2:]
    yield "jpeg of comments", in_jpeg(segment(0xFE, b"") * 200_000)
    yield "jpeg of filling", in_jpeg(b"\xff" * 900_000)
    yield "jpeg of escapes", in_jpeg(b"\xff\0" * 450_000)
    yield "bmp of rows", bmp(_run_lengths(60_000, 60), b"\1\1\0\0" * 60)
    yield "bmp of rows without pixels", bmp(_run_lengths(60_000, 16), b"\0\0" * 450_000)
    gif = encode(noise().quantize(4), "GIF")
    at = gif.index(b",\0\0\0\0")
    yield "gif of comments", gif[:at] + b"!\xfe" + b"\1a" * 450_000 + b"\0" + gif[at:]
    yield "tiff of tags", tiff({256: 8, 257: 8, 273: 8, 279: 192}, 60_000)
    parts = {256: 65_000, 257: 400, 322: 16, 323: 16, 324: (8, 101_600), 325: (8, 101_600)}
    yield "tiff of tiles", tiff(parts) + bytes(500_000)
    scans_in_tiff = {256: 1000, 257: 1000, 259: 7, 262: 6, 273: 8, 278: 1000, 279: 900_000}
    slow = large[:-2] + scan * (900_000 // len(scan)) + large[-2:]
    yield "tiff of scans", tiff(scans_in_tiff, data=slow[:900_000])
    yield "webp of chunks", _webp(b"JUNK\0\0\0\0" * 110_000, honest()["lossy webp"][12:])
    yield "jpeg of restarts", in_jpeg(b"\xff\xd0" * 450_000)


def burdens() -> Iterator[tuple[str, bytes]]:
    """Files with much in them that a decoder can skip."""
    entries = [(tag, 7, 65_000, 8) for tag in range(1, 5000)]
    yield "jpeg of tags", in_jpeg(segment(0xE1, b"Exif\0\0" + exif(entries)))
    directory = exif([(tag, 7, 700_000, 8) for tag in range(1, 60_000)])
    yield "png of tags", png(SIDE, SIDE, [_rows(SIDE)], chunk(b"eXIf", directory))
    yield "webp of tags", encode(noise(), "WEBP", exif=directory)
    yield "bmp of short rows", bmp(_run_lengths(60_000, 16), b"\1\1\0\0" * 16)
    gif = encode(noise().quantize(4), "GIF")
    at = gif.index(b",\0\0\0\0")
    yield "gif of extensions", gif[:at] + b"!\xf9\4\0\0\0\0\0" * 110_000 + gif[at:]
    yield "gif of frames", _animated("GIF", 300)
    yield "webp of frames", _animated("WEBP", 300)
    yield "apng of frames", _animated("PNG", 300)


def oddities() -> Iterator[tuple[str, bytes]]:
    """Files of more than one format, or that refer to themselves."""
    files = honest()
    yield (
        "exif that points at itself",
        in_jpeg(
            segment(0xE1, b"Exif\0\0" + exif([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8)], following=8))
        ),
    )
    for orientation in (0, 9, 65_535):
        block = exif([(0x0112, 3, 1, orientation << 16)])
        yield f"orientation {orientation}", in_jpeg(segment(0xE1, b"Exif\0\0" + block))
    yield "exif of nothing", in_jpeg(segment(0xE1, b"Exif\0\0"))
    yield "mpo of two", encode(noise(), "MPO", save_all=True, append_images=[noise(seed=1)])
    index = b"MPF\0" + exif([(0xB001, 4, 1, 2**31), (0xB002, 7, 2**31, 50)])
    yield "mpo that counts wrong", in_jpeg(segment(0xE2, index))
    yield "jpeg and zip", files["jpeg"] + b"PK\x05\x06" + bytes(18)
    yield "png and page", files["png"] + b"<html><script>alert(1)</script>"
    yield "gif and jpeg", b"GIF89a" + files["jpeg"]
    yield "pdf", b"%PDF-1.7\n" + files["jpeg"]
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield "a path", b"/etc/passwd"
    for kind in ("GIF", "TIFF", "BMP", "ICO", "PPM", "TGA"):
        yield kind.lower(), encode(noise(), kind)
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    yield "nothing", b""
    yield "zeros", bytes(1000)
    signatures = (PNG, b"\xff\xd8\xff\xe0", b"RIFF\xff\xff\xff\xffWEBPVP8X")
    for signature in signatures:
        yield f"only {signature[:4]!r}", signature
        yield f"{signature[:4]!r} and noise", signature + noise(64).tobytes()


def cut() -> Iterator[tuple[str, bytes]]:
    """Each honest file, truncated at every length."""
    for kind, content in honest().items():
        for length in range(len(content)):
            yield f"{kind} cut at {length}", content[:length]


def flipped(step: int = 3) -> Iterator[tuple[str, bytes]]:
    """Each honest file with one byte inverted, at every `step`-th place."""
    for kind, content in honest().items():
        for at in range(0, len(content), step):
            damaged = bytearray(content)
            damaged[at] ^= 0xFF
            yield f"{kind} flipped at {at}", bytes(damaged)
