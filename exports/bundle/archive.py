"""A bundle as one file: a zip that any tool opens, whose bytes depend on the bundle alone.

Entries are stored, not deflated. Weights and logits hardly shrink, and versions of zlib write
different bytes for the same input, which would change the sha256 in the bundle's URL. Deflated
entries are read as well, so that bundles zipped by other tools can be used.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from pathlib import Path
from typing import IO

from exports.bundle.errors import BundleError
from exports.bundle.manifest import CARD, GEARS, MANIFEST, POLICY
from exports.bundle.reader import load_bundle, read_graph
from exports.bundle.schema_types import FILE_NAME, MAX_NAME
from exports.bundle.untrusted.safe_files import (
    MAX_CARD_BYTES,
    MAX_FILE_BYTES,
    one_line,
    read_plain,
)
from exports.bundle.untrusted.safe_zip import DAMAGE, open_zip
from offramp.files import check_target, new_file

# Enough for sixty stages with a graph each.
MAX_FILES = 128
# All files of a bundle. Twice the largest stage, and below the size at which a zip needs zip64.
MAX_UNPACKED_BYTES = (2 << 30) - (1 << 20)
# Packed files are downloaded and hashed before they are opened.
MAX_PACKED_BYTES = 2 << 30
# How much larger than its zip a bundle may be, beyond the allowance. Weights hardly shrink and JSON
# shrinks severalfold; deflate can reach a factor of a thousand.
MAX_RATIO = 20
RATIO_ALLOWANCE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
# The earliest time a zip can hold. Every entry has it, so that the same bundle gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
UNIX = 3


def pack_bundle(path: Path, target: Path) -> str:
    """Write the bundle in directory `path` as the file `target` and return its sha256.

    The bundle is verified first, including its whole-network graphs. Of the files that the manifest
    does not list only the gears and the model card are packed. The file is written completely or not at
    all. Raises BundleError if the bundle is damaged or too large, WriteError if `target` exists or its
    directory does not.
    """
    check_target(target)
    bundle = load_bundle(path)
    manifest = bundle.manifest
    for entry in manifest.graphs:
        read_graph(path, entry)
    names = [MANIFEST, POLICY, *manifest.files]
    if bundle.gears is not None:
        names.append(GEARS)
    if (path / CARD).exists():
        names.append(CARD)
    total = sum((path / name).stat().st_size for name in names)
    if total > MAX_UNPACKED_BYTES or len(names) > MAX_FILES:
        raise BundleError(
            f"{path} has {len(names)} files of {total} bytes; at most {MAX_FILES} files of "
            f"{MAX_UNPACKED_BYTES} bytes can be packed."
        )
    with new_file(target) as part, open(part, "w+b") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(names):
                info = zipfile.ZipInfo(name, EPOCH)
                info.create_system = UNIX
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                limit = MAX_CARD_BYTES if name == CARD else MAX_FILE_BYTES
                archive.writestr(info, read_plain(path, name, limit))
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack_bundle(file: IO[bytes], target: Path, shown: str) -> None:
    """Write the packed bundle `file` into the empty directory `target`; messages name it `shown`.

    Raises BundleError if it is not a zip, is damaged, holds anything but plain files with distinct
    names that a bundle can have, or unpacks to too many bytes, which are counted on the way. Files
    written until then stay. The caller verifies the bundle itself with `load_bundle`.
    """
    size = file.seek(0, os.SEEK_END)
    remaining = min(MAX_UNPACKED_BYTES, RATIO_ALLOWANCE_BYTES + MAX_RATIO * size)
    try:
        with open_zip(file, MAX_FILES) as archive:
            entries = archive.infolist()
            _check_names(entries, shown)
            for entry in entries:
                with archive.open(entry) as source, open(target / entry.filename, "xb") as copy:
                    while chunk := source.read(CHUNK_BYTES):
                        remaining -= len(chunk)
                        if remaining < 0:
                            raise BundleError(f"{shown} unpacks to more than a bundle may hold.")
                        copy.write(chunk)
                    copy.flush()
                    os.fsync(copy.fileno())
    except DAMAGE as error:
        raise BundleError(f"{shown} is not a packed bundle: {one_line(str(error))}.") from error


def _check_names(entries: list[zipfile.ZipInfo], shown: str) -> None:
    names: set[str] = set()
    for entry in entries:
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name != entry.orig_filename or not re.fullmatch(FILE_NAME, name) or len(name) > MAX_NAME:
            raise BundleError(
                f"{shown} holds {one_line(entry.orig_filename[:200])!r}, "
                "which is not a file name that a bundle can have."
            )
        # Zips from other systems do not record the kind of file.
        if kind not in (0, stat.S_IFREG):
            raise BundleError(f"{shown} holds {name}, which is not a plain file.")
        # Some file systems ignore case.
        if name.casefold() in names:
            raise BundleError(f"{shown} holds {name} twice.")
        names.add(name.casefold())
    if MANIFEST not in names:
        raise BundleError(f"{shown} is not a packed bundle: it has no {MANIFEST}.")
