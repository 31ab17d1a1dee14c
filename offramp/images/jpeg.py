"""JPEG files: their segments, their metadata, and whether all of the image is there (ITU-T T.81).

A decoder does a fixed amount of work for every marker or scan, however short. A progressive JPEG of a few
megabytes can contain so many scans that decoding takes hours, within any limit of pixels.

libjpeg fills the missing part of an image with grey, and only warns of it, which Pillow does not pass on.
So the decoder is fed here: first the file without its end marker, then a few bits that mean nothing. An
image that is whole needs none of them, or at most those that it lacks in its last block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageFile

from offramp.errors import ImageError
from offramp.images import exif
from offramp.images.source import MAX_PROFILE_BYTES, DamagedError, Source

SIGNATURE = b"\xff\xd8"
# Encoders write about ten scans, at most about twenty.
MAX_SCANS = 32
# Cameras write a few dozen at most; a large colour profile needs some more.
MAX_SEGMENTS = 1000
# Not a marker: 0xFF00 is a data byte, 0xFFD0 to 0xFFD7 are restarts, and repeated 0xFF is padding.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END = b"\xff\xd9"
_TEM, _EOI, _SOS, _DRI, _COMMENT = 0x01, 0xD9, 0xDA, 0xDD, 0xFE
_APP0, _EXIF, _ICC, _ADOBE, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ARITHMETIC = frozenset(range(0xC9, 0xD0))
_ICC_PREFIX = b"ICC_PROFILE\0"
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
# Two ones, as data: more than a decoder reads ahead in all, and one that it cannot take alone.
_ONES = b"\xff\0"
_READ_AHEAD = 8 * _ONES
_PROBES = 5
_DONE = -1
# Takes data; returns the bytes taken, or `_DONE`, and a code of an error below zero.
Decode = Callable[[bytes | memoryview], tuple[int, int]]
_OUT_OF_MEMORY = -9


class Segment(NamedTuple):
    """A segment with its marker, from `start` (its 0xFF) to `end`. `data` is where its data begins."""

    marker: int
    start: int
    data: int
    end: int


@dataclass(frozen=True)
class Jpeg:
    """The image of a JPEG file, without metadata.

    `outline` is enough for Pillow to tell its size and colours. `head` is what libjpeg needs before the data
    of the first scan, which begin at `scans`; the data of each scan end at one of `ends`. `multiple` says
    whether libjpeg decodes only after the last scan, `suspendable` whether it can be fed piece by piece.
    `whole` is false if scans or intervals are missing.
    """

    content: bytes
    outline: bytes
    head: bytes
    scans: int
    ends: tuple[int, ...]
    multiple: bool
    suspendable: bool
    whole: bool


def segments(content: bytes) -> tuple[list[Segment], int]:
    """The segments of the JPEG file `content` and where its end marker is, or where the file ends.

    Raises ImageError if there are more segments, scans or bytes of padding than encoders write.
    """
    found: list[Segment] = []
    at = len(SIGNATURE)
    scans = padding = 0
    search = _NEXT_MARKER.search
    while (match := search(content, at)) is not None:
        start, data = match.span()
        marker = content[data - 1]
        if scans == 0:
            # Decoders read padding between the segments before the first scan byte by byte.
            padding += start - at
        if marker == _EOI:
            return found, start
        if marker == _SOS:
            scans += 1
        if len(found) >= MAX_SEGMENTS or padding > MAX_SEGMENTS:
            raise ImageError(f"The image has more than {MAX_SEGMENTS} segments.")
        if scans > MAX_SCANS:
            raise ImageError(f"The image has more than {MAX_SCANS} scans.")
        if marker == _TEM:
            at = data
            continue
        at = data + int.from_bytes(content[data : data + 2], "big")
        found.append(Segment(marker, start, data + 2, at))
    # Downloads that were broken off are filled up with zeros.
    return found, max(len(content.rstrip(b"\0")), min(at, len(content)))


def read(content: bytes) -> tuple[Jpeg, Source]:
    """Separate the image of a JPEG file from its metadata.

    Raises ImageError if the file is crafted to be slow or has other than eight bits a channel, DamagedError
    if its head is not whole.
    """
    parts, end = segments(content)
    head: list[bytes] = [SIGNATURE]
    profile: list[bytes] = []
    orientation: int | None = None
    frame = scan = None
    intervals = False
    for part in parts:
        marker, start, data, stop = part
        if _APP0 <= marker <= _APP15:
            # Two of them say what the channels mean, the others are metadata.
            is_jfif = marker == _APP0 and content.startswith(b"JFIF\0", data)
            is_adobe = marker == _ADOBE and content.startswith(b"Adobe", data)
            if (is_jfif and stop - data >= _JFIF_BYTES) or (
                is_adobe and stop - data >= _ADOBE_BYTES
            ):
                head.append(content[start:stop])
            elif marker == _EXIF and content.startswith(exif.PREFIX, data) and orientation is None:
                orientation = exif.orientation(content[data:stop])
            elif marker == _ICC and content.startswith(_ICC_PREFIX, data):
                profile.append(content[data + len(_ICC_PREFIX) : stop])
            continue
        if marker == _COMMENT:
            continue
        head.append(content[start:stop])
        if marker == _SOS:
            scan = part
            break
        if marker == _DRI:
            intervals = True
        elif marker in _FRAMES and frame is None:
            frame = part
    if scan is None or frame is None or scan.end > len(content):
        raise DamagedError
    if (depth := content[frame.data]) != 8:
        raise ImageError(f"The JPEG file has {depth} bits a channel; only 8 are supported.")
    progressive = frame.marker in _PROGRESSIVE
    multiple = progressive or content[scan.data] != content[frame.data + 5]
    jpeg = Jpeg(
        content,
        b"".join((SIGNATURE, content[frame.start : frame.end], head[-1])),
        b"".join(head),
        scan.end,
        _scan_ends(parts, end) if multiple else (end,),
        multiple,
        frame.marker not in _ARITHMETIC,
        not (intervals and not _restarts_are_whole(content, parts, frame, end))
        and not (progressive and not _scans_are_whole(content, parts, frame)),
    )
    return jpeg, Source(
        content, orientation or exif.UPRIGHT, _profile(profile) if profile else None
    )


def _scan_ends(parts: Sequence[Segment], end: int) -> tuple[int, ...]:
    """Where the data of each scan end: at the next segment, or at the `end` of the image."""
    following = [*(part.start for part in parts[1:]), end]
    return tuple(stop for part, stop in zip(parts, following, strict=True) if part.marker == _SOS)


def _profile(pieces: list[bytes]) -> bytes | None:
    """The ICC profile in pieces, each behind its number and the number of all (ICC.1:2022, annex B.4)."""
    pieces.sort()
    if any(len(piece) < 2 for piece in pieces) or pieces[0][1] != len(pieces):
        return None
    profile = b"".join(piece[2:] for piece in pieces)
    return profile if len(profile) <= MAX_PROFILE_BYTES else None


def _components(content: bytes, frame: Segment) -> dict[int, tuple[int, int]]:
    """The sampling factors (horizontal, vertical) of each component of the frame."""
    table = content[frame.data + 6 : frame.end]
    return {
        table[at]: (max(table[at + 1] >> 4, 1), max(table[at + 1] & 15, 1))
        for at in range(0, len(table) - 2, 3)
    }


def _scans_are_whole(content: bytes, parts: Sequence[Segment], frame: Segment) -> bool:
    """Whether a progressive file has the last bit of each coefficient of each component (annex G.1.1.1)."""
    found: dict[int, set[int]] = {name: set() for name in _components(content, frame)}
    for part in parts:
        if part.marker == _SOS:
            table = content[part.data : part.end]
            band = table[1 + 2 * table[0] :]
            if len(band) == 3 and band[2] & 15 == 0:
                for name in table[1 : 1 + 2 * table[0] : 2]:
                    found.setdefault(name, set()).update(range(band[0], band[1] + 1))
    return all(coefficients >= set(range(64)) for coefficients in found.values())


def _restarts_are_whole(content: bytes, parts: Sequence[Segment], frame: Segment, end: int) -> bool:
    """Whether every scan has as many restart markers as its size and interval need (annex A.2).

    A decoder continues after a missing interval with the next one, and leaves grey.
    """
    factors = _components(content, frame)
    height, width = (
        int.from_bytes(content[at : at + 2], "big") for at in (frame.data + 1, frame.data + 3)
    )
    if not factors:
        return False
    widest, highest = (max(factor[k] for factor in factors.values()) for k in (0, 1))
    interval = 0
    ends = iter(_scan_ends(parts, end))
    for part in parts:
        if part.marker == _DRI:
            interval = int.from_bytes(content[part.data : part.end], "big")
        if part.marker != _SOS:
            continue
        stop = next(ends)
        if interval == 0:
            continue
        names = content[part.data + 1 : part.data + 1 + 2 * content[part.data] : 2]
        # One component alone has units of 8 x 8 samples; several are interleaved.
        alone = factors.get(names[0], (1, 1)) if len(names) == 1 else (1, 1)
        units = -(-width * alone[0] // (8 * widest)) * -(-height * alone[1] // (8 * highest))
        restarts = len(_RESTART.findall(content, part.end, stop))
        if restarts < -(-units // interval) - 1:
            return False
    return True


def load(jpeg: Jpeg, image: ImageFile.ImageFile) -> None:
    """Decode the image data into `image`, which was opened from `jpeg.outline`.

    Raises DamagedError if a part of the image is missing. The verdict is the same at every reduced size.
    """
    image.load_prepare()
    codec, extents, _, options = image.tile[0]
    decoder = Image._getdecoder(image.mode, codec, options, image.decoderconfig)
    try:
        decoder.setimage(image.im, extents)
        whole = jpeg.whole and _feed(decoder.decode, jpeg)
    finally:
        decoder.cleanup()
    if not whole:
        raise DamagedError
    image.tile = []


def _take(decode: Decode, data: bytes | memoryview) -> int:
    """The number of bytes taken, or `_DONE`."""
    taken, error = decode(data)
    if error == _OUT_OF_MEMORY:
        raise MemoryError
    if error < 0:
        raise DamagedError
    return taken


def _feed(decode: Decode, jpeg: Jpeg) -> bool:
    """Feed the file to the decoder; whether the image is whole."""
    if not jpeg.suspendable:
        return _take(decode, jpeg.head + jpeg.content[jpeg.scans : jpeg.ends[-1]] + _END) == _DONE
    taken = _take(decode, jpeg.head)
    left = jpeg.head[taken:]
    start, content = jpeg.scans, memoryview(jpeg.content)
    for end in jpeg.ends:
        data = left + bytes(content[start:end]) if left else content[start:end]
        taken = _take(decode, data)
        if taken == _DONE:
            return True
        left = bytes(data[taken:]) + _READ_AHEAD
        if not jpeg.multiple:
            return _take(decode, left) == _DONE
        if not _skips(decode, left):
            return False
        start, left = end, b""
    # Several scans are decoded after the end marker.
    return _take(decode, _END) == _DONE


def _skips(decode: Decode, data: bytes) -> bool:
    """Whether the decoder skips `data` and what follows: it has the whole scan.

    In an incomplete scan it waits for eight bytes at a time.
    """
    for _ in range(_PROBES):
        if _take(decode, data) < len(data):
            return False
        data = _ONES
    return True
