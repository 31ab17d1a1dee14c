"""An image of which a part is missing is damaged, however the file ends and at every input size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image, ImageFile

from offramp.images import ImageSpec, decode
from tests.offramp.images.made import encode, png_chunk, scene, verdicts

DAMAGED = "The {} file is damaged or incomplete."
JPEGS: dict[str, dict[str, object]] = {
    "baseline": {},
    "optimised": {"optimize": True},
    "subsampled": {"subsampling": 2},
    "progressive": {"progressive": True},
    "intervals": {"restart_marker_blocks": 5},
    "progressive intervals": {"progressive": True, "restart_marker_rows": 1},
}
SHARES = (0.3, 0.6, 0.9)
LARGE = (200, 136)


def cut(content: bytes, share: float) -> dict[str, bytes]:
    """The file without its last part, in every way it may end."""
    kept = content[: int(len(content) * share)]
    missing = len(content) - len(kept)
    return {
        "no end": kept,
        "an end": kept + b"\xff\xd9",
        "zeros": kept + bytes(missing),
        "an end and zeros": kept + b"\xff\xd9" + bytes(missing),
    }


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_is_cut_is_damaged(name: str, mode: str) -> None:
    content = encode(scene(*LARGE).convert(mode), "JPEG", **JPEGS[name])
    assert verdicts(content) == {"read"}
    for share in SHARES:
        for end, damaged in cut(content, share).items():
            assert verdicts(damaged) == {DAMAGED.format("JPEG")}, (share, end)


@pytest.mark.parametrize("name", ["baseline", "progressive", "intervals"])
def test_a_jpeg_without_its_middle_is_damaged(name: str) -> None:
    content = encode(scene(*LARGE), "JPEG", **JPEGS[name])
    size = len(content)
    hole = content[: size * 4 // 10] + content[size * 8 // 10 :]
    assert verdicts(hole) == {DAMAGED.format("JPEG")}


def test_a_progressive_jpeg_without_its_fine_scans_is_damaged() -> None:
    content = encode(scene(*LARGE), "JPEG", progressive=True)
    second = content.index(b"\xff\xda", content.index(b"\xff\xda") + 2)
    assert verdicts(content[:second] + b"\xff\xd9") == {DAMAGED.format("JPEG")}


@pytest.mark.parametrize("colour", [(128, 128, 128), (0, 0, 0), (255, 255, 255)])
@pytest.mark.parametrize("name", JPEGS)
def test_a_plain_jpeg_is_whole(name: str, colour: tuple[int, int, int]) -> None:
    assert verdicts(encode(Image.new("RGB", LARGE, colour), "JPEG", **JPEGS[name])) == {"read"}


def missing_parts() -> Iterator[tuple[str, str, bytes]]:
    """Files of other formats whose image ends early, though the file ends well."""
    image = scene(*LARGE)
    png = encode(image, "PNG")
    start = png.index(b"IDAT") + 4
    data = png[start : start + int.from_bytes(png[start - 8 : start - 4], "big")]
    end = png_chunk(b"IEND", b"")
    yield (
        "PNG",
        "half its data",
        png[: start - 8] + png_chunk(b"IDAT", data[: len(data) // 2]) + end,
    )
    rows = zlib.compress(zlib.decompress(data)[:20_000])
    yield "PNG", "fewer rows", png[: start - 8] + png_chunk(b"IDAT", rows) + end
    gif = encode(image.quantize(200), "GIF")
    yield "GIF", "half its data", gif[: len(gif) // 2] + b"\0;"
    bmp = encode(image, "BMP")
    yield "BMP", "half its rows", bmp[: len(bmp) // 2]
    for lossless in (False, True):
        webp = encode(image, "WEBP", lossless=lossless)
        size = len(webp) // 2 // 2 * 2
        half = webp[12 : 12 + 4] + struct.pack("<I", size - 20) + webp[20:size]
        body = b"WEBP" + half
        yield "WebP", f"half, lossless {lossless}", struct.pack("<4sI", b"RIFF", len(body)) + body
        yield "WebP", f"zeros, lossless {lossless}", webp[:size] + bytes(len(webp) - size)
    avif = encode(image, "AVIF")
    yield "AVIF", "half", avif[: len(avif) // 2]
    yield "AVIF", "zeros", avif[: len(avif) // 2] + bytes(len(avif) - len(avif) // 2)
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        tiff = encode(image, "TIFF", compression=compression)
        yield "TIFF", f"half, {compression}", tiff[: len(tiff) // 2]
    tiff = encode(image, "TIFF")
    for missing in (1, 100):
        yield "TIFF", f"without {missing} bytes", tiff[:-missing]


MISSING = list(missing_parts())


@pytest.mark.parametrize(
    ("form", "content"), [(f, c) for f, _, c in MISSING], ids=[n for _, n, _ in MISSING]
)
def test_a_file_of_another_format_that_ends_early_is_damaged(form: str, content: bytes) -> None:
    assert verdicts(content) == {DAMAGED.format(form)}


def test_too_little_memory_is_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: ImageFile.ImageFile) -> None:
        # Pillow's words where a decoder could not allocate.
        raise OSError("out of memory when reading image file")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MemoryError, match="out of memory"):
        decode(encode(scene(9, 9), "PNG"), ImageSpec(8, 8), 1000)
