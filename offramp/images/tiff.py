"""TIFF files: the first image's directory, without metadata (TIFF 6.0; BigTIFF)."""

from __future__ import annotations

import ctypes
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from PIL import _imaging

from offramp.errors import ImageError
from offramp.images import exif, jpeg
from offramp.images.source import MAX_PROFILE_BYTES, Source

# Decoders read the parts of an image one by one.
MAX_PARTS = 100_000
# What a decoder needs to know of an image.
_WIDTH, _LENGTH, _COMPRESSION = 256, 257, 259
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_WIDTH, _TILE_LENGTH = 273, 279, 322, 323
_TILE_OFFSETS, _TILE_BYTES = 324, 325
_ORIENTATION, _PROFILE = 274, 34675
_LAYOUT = frozenset(
    {
        _WIDTH,
        _LENGTH,
        258,
        _COMPRESSION,
        262,
        266,
        _STRIP_OFFSETS,
        277,
        278,
        _STRIP_BYTES,
        284,
        292,
        293,
    }
    | {
        317,
        320,
        _TILE_WIDTH,
        _TILE_LENGTH,
        _TILE_OFFSETS,
        _TILE_BYTES,
        332,
        338,
        339,
        347,
        529,
        530,
        531,
        532,
    }
)
_OLD_JPEG, _JPEG = 6, 7
# Bytes of a value, by type.
_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    16: 8,
    17: 8,
}
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True)
class _Form:
    """How numbers and directories are written: byte order, and the forms of a count of entries, an offset,
    and an entry's tag, type and count."""

    order: str
    entries: str
    offset: str
    entry: str

    def unpack(self, form: str, content: bytes, at: int) -> int:
        """The number of this form at `at`. Raises struct.error behind the end."""
        (value,) = struct.unpack_from(self.order + form, content, at)
        return int(value)


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    count: int
    raw: bytes
    at: int  # where its values are


def read(content: bytes) -> Source:
    """Separate the first image of a TIFF file from its metadata and from other images.

    Raises ImageError if the file has too many parts, large tiles, parts that are crafted to be slow or a
    directory within its header, and struct.error if its directory is incomplete.
    """
    _silence_libtiff()
    form, first = _form(content)
    order = form.order
    if first < 2 * struct.calcsize(order + form.offset):
        raise ImageError("The directory of the TIFF file is within its header.")
    entries = _entries(content, form, first)
    kept = sorted(
        (entry for entry in entries.values() if entry.tag in _LAYOUT), key=lambda e: e.tag
    )
    directory = b"".join(
        [
            struct.pack(order + form.entries, len(kept)),
            *(entry.raw for entry in kept),
            struct.pack(order + form.offset, 0),
        ]
    )
    # In place of the old one, which was no smaller. Behind the end of a file that is cut off it would be read
    # as pixels.
    whole = b"".join([content[:first], directory, content[first + len(directory) :]])
    _check(whole, form, _entries(whole, form, first))
    orientation = _integers(content, form, entries.get(_ORIENTATION)) or [exif.UPRIGHT]
    return Source(
        whole,
        orientation[0] if orientation[0] in range(1, 9) else exif.UPRIGHT,
        _bytes(content, entries.get(_PROFILE)),
    )


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing a line to stderr for every fault of a file: clients could fill the log.

    Where Pillow contains libtiff instead of loading it, there is nothing to call.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


def _form(content: bytes) -> tuple[_Form, int]:
    """The form of the file, and where its first directory is."""
    order = "<" if content.startswith(b"II") else ">"
    (version,) = struct.unpack_from(order + "H", content, 2)
    if version == 43:
        form = _Form(order, "Q", "Q", "HHQ")
        return form, form.unpack("Q", content, 8)
    form = _Form(order, "H", "I", "HHI")
    return form, form.unpack("I", content, 4)


def _entries(content: bytes, form: _Form, at: int) -> dict[int, _Entry]:
    """The entries of the directory at `at` by tag; the first of each tag."""
    size = struct.calcsize(form.order + form.entry) + struct.calcsize(form.order + form.offset)
    inline = struct.calcsize(form.order + form.offset)
    first = at + struct.calcsize(form.order + form.entries)
    found: dict[int, _Entry] = {}
    for start in range(first, first + size * form.unpack(form.entries, content, at), size):
        tag, kind, count = struct.unpack_from(form.order + form.entry, content, start)
        value = start + size - inline
        if _TYPE_BYTES.get(kind, 0) * count > inline:
            value = form.unpack(form.offset, content, value)
        found.setdefault(tag, _Entry(tag, kind, count, content[start : start + size], value))
    return found


def _integers(content: bytes, form: _Form, entry: _Entry | None) -> list[int]:
    """The values of an entry of whole numbers; none if there is no such entry or it is of another type."""
    if entry is None or entry.kind not in _INTEGERS or entry.count > MAX_PARTS:
        return []
    try:
        return list(
            struct.unpack_from(
                f"{form.order}{entry.count}{_INTEGERS[entry.kind]}", content, entry.at
            )
        )
    except struct.error:
        return []


def _bytes(content: bytes, entry: _Entry | None) -> bytes | None:
    if entry is None or entry.count > MAX_PROFILE_BYTES or _TYPE_BYTES.get(entry.kind) != 1:
        return None
    return content[entry.at : entry.at + entry.count]


def _check(content: bytes, form: _Form, entries: dict[int, _Entry]) -> None:
    """Raise ImageError if a decoder would need too much memory or time for the image's parts."""

    def values(tag: int) -> list[int]:
        return _integers(content, form, entries.get(tag))

    for tag in (_STRIP_OFFSETS, _TILE_OFFSETS):
        if tag in entries and entries[tag].count > MAX_PARTS:
            raise ImageError(f"The TIFF file has more than {MAX_PARTS} strips or tiles.")
    sides = [values(tag) for tag in (_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH)]
    if all(sides):
        width, height, tile_width, tile_length = (side[0] for side in sides)
        # Tiles are multiples of 16; a small image may be one large tile of the usual 512.
        if tile_width > max(2 * width, 1024) or tile_length > max(2 * height, 1024):
            raise ImageError("The TIFF file has tiles that are much larger than the image.")
    compression = values(_COMPRESSION) or [1]
    if compression[0] == _OLD_JPEG:
        raise ImageError(
            "The TIFF file has JPEG compression of the old kind, which is not supported."
        )
    if compression[0] == _JPEG:
        starts = values(_STRIP_OFFSETS) or values(_TILE_OFFSETS)
        sizes = values(_STRIP_BYTES) or values(_TILE_BYTES)
        for start, size in zip(starts, sizes, strict=False):
            jpeg.segments(content[start : start + size])
