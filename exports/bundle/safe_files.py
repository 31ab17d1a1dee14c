"""Reading a bundle's files: plain ones, of a bounded size, with JSON that means one thing only."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path

from exports.bundle.errors import BundleError

# Class names, recipe and hashes: 20,000 long labels fit; parsing takes several times this in memory.
MAX_MANIFEST_BYTES = 4 << 20
# A threshold per exit and a certificate.
MAX_POLICY_BYTES = 64 << 10
# Text for people; nothing reads it but `offramp pack`.
MAX_CARD_BYTES = 4 << 20
# A stage, a whole-network graph or a calibration table. ResNet-152 in float32 has 240 MB, and every
# verified file is held in memory; protobuf itself ends at 2 GiB.
MAX_FILE_BYTES = 1 << 30


def read_plain(path: Path, name: str, limit: int) -> bytes:
    """Read the file `name` of the directory `path`, of at most `limit` bytes.

    Raises BundleError if it is missing, a link, anything but a plain file, or larger. A pipe or a
    device is refused without waiting for it or reading from it.
    """
    file = path / name
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BundleError(f"{file} is a link; a bundle holds plain files only.") from error
        raise BundleError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{file} is not a plain file; a bundle holds nothing else.")
        if status.st_size > limit:
            raise BundleError(f"{file} has {status.st_size} bytes; at most {limit} are allowed.")
        with open(handle, "rb", closefd=False) as content:
            found = content.read(status.st_size + 1)
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}.") from error
    finally:
        os.close(handle)
    if len(found) != status.st_size:
        raise BundleError(f"{file} changed while it was read.")
    return found


def parse_json(content: bytes, file: Path) -> object:
    """Parse UTF-8 JSON; `file` is named in the BundleError if it is malformed.

    Refused too: a key that stands twice in one object, which two readers may understand
    differently, and NaN and infinities, spelled out or as a number too large for a float.
    """
    try:
        found = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        # A lone surrogate can be escaped in JSON, but not be written again.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON: {one_line(str(error))}.") from error
    return found


def one_line(text: str) -> str:
    """`text` for a terminal or a log: every kind of space is a plain one, and what cannot be printed
    is replaced."""
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} stands there twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:100]} is too large a number")
    return value
