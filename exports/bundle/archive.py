"""A bundle as one file: a zip that any tool opens, whose bytes depend on the bundle alone.

Entries are stored, not deflated. Weights and logits hardly shrink, and zlib's versions write
different bytes for the same input, which would change the sha256 that a URL is given with.
Deflated entries are read all the same, so that a bundle zipped by other tools can be used.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import IO

from exports.bundle.errors import BundleError
from exports.bundle.manifest import CARD, FILE_NAME, MANIFEST, MAX_NAME, POLICY
from exports.bundle.reader import load_bundle, read_graph
from exports.bundle.safe_files import MAX_FILE_BYTES, one_line, read_plain
from exports.bundle.safe_zip import DAMAGE, open_zip

# Sixty stages with a graph each, and more than any bundle that was ever written.
MAX_FILES = 128
# Everything a bundle unpacks to. Twice the largest stage, and no zip that needs 64-bit sizes.
MAX_UNPACKED_BYTES = (2 << 30) - (1 << 20)
# Packed files are hashed and downloaded before they are looked into.
MAX_PACKED_BYTES = 2 << 30
# How much larger than its zip a bundle may be, beyond the allowance. Weights hardly shrink,
# JSON does severalfold; deflate can reach a thousand.
MAX_RATIO = 20
RATIO_ALLOWANCE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
# The earliest moment a zip can hold, in every entry, so that the same bundle gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
UNIX = 3


def pack_bundle(path: Path, target: Path) -> str:
    """Write the bundle in directory `path` as the file `target` and return its sha256.

    The bundle is verified first, graphs included. Files that the manifest does not know are left
    out, but for the model card. The file appears whole or not at all. Raises BundleError if the
    bundle is damaged or too large, or if `target` exists.
    """
    if target.exists():
        raise BundleError(f"{target} exists already; choose another name or move it away.")
    manifest = load_bundle(path).manifest
    for entry in manifest.graphs:
        read_graph(path, entry)
    names = [MANIFEST, POLICY, *manifest.files]
    if (path / CARD).exists():
        names.append(CARD)
    total = sum((path / name).stat().st_size for name in names)
    if total > MAX_UNPACKED_BYTES or len(names) > MAX_FILES:
        raise BundleError(
            f"{path} has {len(names)} files of {total} bytes; at most {MAX_FILES} files of "
            f"{MAX_UNPACKED_BYTES} bytes can be packed."
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        whole = Path(scratch) / target.name
        with open(whole, "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name in sorted(names):
                    entry_ = zipfile.ZipInfo(name, EPOCH)
                    entry_.create_system = UNIX
                    entry_.external_attr = (stat.S_IFREG | 0o644) << 16
                    archive.writestr(entry_, read_plain(path, name, MAX_FILE_BYTES))
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.rename(whole, target)
    return digest


def unpack_bundle(file: IO[bytes], target: Path, shown: str) -> None:
    """Write the packed bundle `file` into the empty directory `target`; `shown` is its name.

    Raises BundleError if it is no zip, damaged, or holds anything but plain files with names that
    a bundle can have, each once; or if it unpacks to too much, counted while it does. What was
    written until then stays. The bundle itself is for `load_bundle` to verify.
    """
    size = file.seek(0, os.SEEK_END)
    room = min(MAX_UNPACKED_BYTES, RATIO_ALLOWANCE_BYTES + MAX_RATIO * size)
    try:
        with open_zip(file, MAX_FILES) as archive:
            entries = archive.infolist()
            _check_names(entries, shown)
            for entry in entries:
                with archive.open(entry) as source, open(target / entry.filename, "xb") as copy:
                    while chunk := source.read(CHUNK_BYTES):
                        room -= len(chunk)
                        if room < 0:
                            raise BundleError(f"{shown} unpacks to more than a bundle may hold.")
                        copy.write(chunk)
                    copy.flush()
                    os.fsync(copy.fileno())
    except DAMAGE as error:
        raise BundleError(f"{shown} is not a packed bundle: {one_line(str(error))}.") from error


def _check_names(entries: list[zipfile.ZipInfo], shown: str) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name != entry.orig_filename or not re.fullmatch(FILE_NAME, name) or len(name) > MAX_NAME:
            raise BundleError(
                f"{shown} holds {one_line(entry.orig_filename[:200])!r}, "
                "which is no name of a bundle's file."
            )
        # Zips from other systems have no kind.
        if kind not in (0, stat.S_IFREG):
            raise BundleError(f"{shown} holds {name}, which is not a plain file.")
        # Not every file system tells capitals from small letters.
        if name.casefold() in seen:
            raise BundleError(f"{shown} holds {name} twice.")
        seen.add(name.casefold())
    if MANIFEST not in seen:
        raise BundleError(f"{shown} is not a packed bundle: it has no {MANIFEST}.")
