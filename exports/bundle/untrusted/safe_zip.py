"""Reading zip and npz files of unknown origin: sizes are checked before anything is inflated."""

from __future__ import annotations

import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

END = struct.Struct("<4s4H2LH")
END_SIGNATURE = b"PK\x05\x06"
ZIP64_LOCATOR_SIGNATURE = b"PK\x06\x07"
ZIP64_LOCATOR_SIZE = 20
# Names of 100 letters and extra fields, for the most entries of a bundle.
MAX_DIRECTORY_BYTES = 1 << 20
MAX_ARRAYS = 16
STORED_OR_DEFLATED = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ENCRYPTED = 0x1

# What zipfile and zlib raise on damaged files.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    struct.error,
)
# What numpy raises on damaged .npy files: it evaluates their headers as Python literals.
ARRAY_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    tokenize.TokenError,
)


def open_zip(
    file: IO[bytes], max_entries: int, max_directory_bytes: int = MAX_DIRECTORY_BYTES
) -> zipfile.ZipFile:
    """Open `file` for reading if it is a plain zip of at most `max_entries` entries, whose directory has at
    most `max_directory_bytes`.

    zipfile reads the whole directory at once, so its size is checked first. Raises BadZipFile for
    data before or after the zip, comments, zip64 directories, encryption, and compression other
    than deflate.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - END.size - ZIP64_LOCATOR_SIZE))
    tail = file.read()
    if len(tail) < END.size:
        raise zipfile.BadZipFile("it is too short for a zip file")
    signature, disk, first, here, entries, length, start, comment = END.unpack(tail[-END.size :])
    if signature != END_SIGNATURE or comment:
        raise zipfile.BadZipFile("it does not end as a zip file without a comment does")
    zip64 = tail[: -END.size].startswith(ZIP64_LOCATOR_SIGNATURE)
    if zip64 or disk or first or here != entries or start + length + END.size != size:
        raise zipfile.BadZipFile("it is not a single, whole zip file and nothing else")
    if entries > max_entries or length > max_directory_bytes:
        raise zipfile.BadZipFile(f"it has more than the {max_entries} files that are allowed")
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        if info.flag_bits & ENCRYPTED or info.compress_type not in STORED_OR_DEFLATED:
            raise zipfile.BadZipFile("it is encrypted, or compressed in an unsupported way")
    return archive


@dataclass(frozen=True)
class ArraySpec:
    """An array's shape and the kinds of dtype allowed: `f` floats, `iu` integers."""

    shape: tuple[int, ...]
    kinds: str


def read_arrays(content: bytes, specs: Mapping[str, ArraySpec]) -> dict[str, NDArray[Any]]:
    """The arrays named in `specs` from the npz file `content`; pickles are never read.

    Nothing larger than the spec is inflated. Raises ValueError if an array has another shape or
    kind, and one of DAMAGE if the file is damaged.
    """
    with open_zip(io.BytesIO(content), MAX_ARRAYS) as archive:
        return {name: _read_array(archive, name, spec) for name, spec in specs.items()}


def _read_array(archive: zipfile.ZipFile, name: str, spec: ArraySpec) -> NDArray[Any]:
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it has no array {name}")
    with archive.open(f"{name}.npy") as file:
        shape, by_column, dtype = _read_header(file, name)
        if dtype.kind not in spec.kinds:
            raise ValueError(f"{name} is of the type {dtype}")
        if shape != spec.shape:
            raise ValueError(f"{name} has the shape {shape}, not {spec.shape}")
        size = math.prod(shape) * dtype.itemsize
        values = file.read(size + 1)
    if len(values) != size:
        raise ValueError(f"{name} does not have as many values as its header says")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if by_column else "C")


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and dtype of the .npy `file`; raises ValueError if it is damaged."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is in version {version} of the format")
    try:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)
    except ARRAY_DAMAGE as error:
        raise ValueError(f"{name} has a header that cannot be read") from error
