"""Reading the files of a bundle: plain files of bounded size, and unambiguous JSON."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path

from exports.bundle.errors import BundleError

# Class names, recipe and hashes: room for 20,000 long labels. Parsing takes several times this in memory.
MAX_MANIFEST_BYTES = 4 << 20
# A threshold per exit and a certificate.
MAX_POLICY_BYTES = 64 << 10
# Text for people; nothing reads it but `offramp pack`.
MAX_CARD_BYTES = 4 << 20
# A stage, a whole-network graph or a calibration table. ResNet-152 in float32 has 240 MB. Verified files
# are held in memory, and protobuf itself is limited to 2 GiB.
MAX_FILE_BYTES = 1 << 30
# Windows has none of the last three, and needs the first to read bytes as they are.
OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
    OPEN_FLAGS |= getattr(os, _flag, 0)


def read_plain(path: Path, name: str, limit: int) -> bytes:
    """Read the file `name` in the directory `path`, of at most `limit` bytes.

    Raises BundleError if it is missing, a link, anything else but a plain file, or larger. Pipes and
    devices are refused without reading from them or waiting for them.
    """
    file = path / name
    try:
        handle = os.open(file, OPEN_FLAGS)
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
        with open(handle, "rb", closefd=False) as opened:
            content = opened.read(status.st_size + 1)
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}.") from error
    finally:
        os.close(handle)
    if len(content) != status.st_size:
        raise BundleError(f"{file} changed while it was read.")
    return content


def parse_json(content: bytes, file: Path) -> object:
    """Parse UTF-8 JSON; raises BundleError, which names `file`, if it is malformed.

    A duplicate key in an object is an error, since parsers resolve it differently. So are NaN, infinities,
    spelled out or as numbers too large for a float, and integers of more than 64 bits.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
        # A lone surrogate can be escaped in JSON, but not encoded in UTF-8.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON: {one_line(str(error))}.") from error
    return value


def one_line(text: str) -> str:
    """`text` for a terminal or a log: any white space becomes a plain space, and characters that cannot
    be printed are replaced."""
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content: dict[str, object] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key[:100]!r} is duplicated")
        content[key] = value
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:100]} is too large a number")
    return value


def _bounded_int(text: str) -> int:
    value = int(text)
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{text[:100]} is too large a number")
    return value
