"""What a decoder needs of an image file.

Each format has a reader that separates the image from its metadata. The decoder gets the image alone, so
that broken metadata cannot make it fail.
"""

from __future__ import annotations

from dataclasses import dataclass

# A profile larger than this is ignored. Those of printing presses have up to 3 MB.
MAX_PROFILE_BYTES = 4 * 1024 * 1024


class DamagedError(Exception):
    """A part of the image is missing or wrong. `decode` names the format to the user."""


@dataclass(frozen=True)
class Source:
    """An image file: `content` for the decoder, `orientation` from 1 to 8 as in EXIF, and the embedded ICC
    `profile`, which may be broken; None if there is none. Without a profile the values may be light to the
    power of `gamma`."""

    content: bytes
    orientation: int = 1
    profile: bytes | None = None
    gamma: float | None = None


# Compressed images end in more than noise only if they are cut off and filled up.
_MAX_ZEROS = 64


def ends_in_zeros(data: bytes) -> bool:
    """Whether compressed `data` were cut off and filled up with zeros, as unfinished downloads are."""
    zeros = len(data) - len(data.rstrip(b"\0"))
    return zeros > _MAX_ZEROS and zeros > len(data) // 50
