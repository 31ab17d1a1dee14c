"""Opening zip files of unknown origin: nothing is believed before it is checked."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from typing import IO

END = struct.Struct("<4s4H2LH")
END_SIGNATURE = b"PK\x05\x06"
ZIP64_LOCATOR_SIGNATURE = b"PK\x06\x07"
ZIP64_LOCATOR_SIZE = 20
# Names of 100 letters and extra fields, for the most entries that are ever allowed.
MAX_DIRECTORY_BYTES = 1 << 20
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


def open_zip(file: IO[bytes], max_entries: int) -> zipfile.ZipFile:
    """Open `file` for reading if it is a plain zip of at most `max_entries` entries.

    zipfile reads the whole directory at once, so its size is looked at before. Refused with
    BadZipFile: data before or behind the zip, comments, zip64 directories, encryption, and
    compression other than deflate.
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
    if entries > max_entries or length > MAX_DIRECTORY_BYTES:
        raise zipfile.BadZipFile(f"it has more than the {max_entries} files that are allowed")
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        if info.flag_bits & ENCRYPTED or info.compress_type not in STORED_OR_DEFLATED:
            raise zipfile.BadZipFile(
                "it is encrypted, or compressed in a way that is not read here"
            )
    return archive
