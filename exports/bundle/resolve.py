"""Finds a bundle: a directory, a packed file, an https address with its sha256, or one of the embedded."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from exports.bundle.archive import MAX_PACKED_BYTES, unpack_bundle
from exports.bundle.cache import add, cached, open_cache
from exports.bundle.errors import BundleError
from offramp.download import DownloadError, download, hide_query

# Two GiB at about a megabyte a second.
MAX_DOWNLOAD_S = 1800.0
CHUNK_BYTES = 1 << 20
# The bundles that ship with Offramp; docs/guide/training.md says how they were made.
GROCERIES, CIFAR100 = (
    Path(__file__).parents[1] / "embedded" / name for name in ("groceries", "cifar100-lite0")
)
# In the order in which they are served where no bundle is named: the first one answers by default.
EMBEDDED = {path.name: path for path in (GROCERIES, CIFAR100)}


def resolve_bundle(source: str | os.PathLike[str]) -> Path:
    """The directory of the bundle `source`, for `load_bundle` to verify.

    A directory is returned as it is. A name in EMBEDDED is a bundle that ships with Offramp. A packed file
    is unpacked into the cache, as is `https://…#sha256=<64 hex digits>` after its hash was checked; a
    bundle in the cache is not fetched again. Raises BundleError, in one sentence.
    """
    text = os.fspath(source)
    if "://" in text:
        return _from_url(text)
    path = Path(text)
    if text in EMBEDDED and not path.exists():
        return EMBEDDED[text]
    return _from_file(path) if path.is_file() else path


def _from_file(path: Path) -> Path:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_PACKED_BYTES:
            raise BundleError(
                f"{path} is larger than a packed bundle may be ({MAX_PACKED_BYTES} bytes)."
            )
        entry = cached(hashlib.file_digest(file, "sha256").hexdigest())
        if entry:
            return entry
        file.seek(0)
        with tempfile.TemporaryFile(dir=open_cache()) as copy:
            # The file may be changing, so a copy is hashed and unpacked.
            digest = _copy(iter(lambda: file.read(CHUNK_BYTES), b""), copy)
            return _unpack(digest, copy, str(path))


def _from_url(url: str) -> Path:
    shown = hide_query(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BundleError(f"{shown} is not an address: {error}.") from error
    if parts.scheme != "https":
        raise BundleError(f"{shown} cannot be used: bundles are fetched over https only.")
    if parts.username is not None or parts.password is not None:
        raise BundleError("A bundle's address cannot hold a user's name or password.")
    fragment = re.fullmatch(r"sha256=([0-9A-Fa-f]{64})", parts.fragment)
    if not fragment:
        raise BundleError(
            f"{shown} needs #sha256= and 64 hex digits after it; `offramp pack` prints them."
        )
    expected = fragment[1].lower()
    entry = cached(expected)
    if entry:
        return entry
    chunks = download(
        url, max_bytes=MAX_PACKED_BYTES, max_s=MAX_DOWNLOAD_S, label=f"fetching {shown}"
    )
    with tempfile.TemporaryFile(dir=open_cache()) as copy:
        try:
            digest = _copy(chunks, copy)
        except DownloadError as error:
            raise BundleError(str(error)) from error
        if digest != expected:
            raise BundleError(f"{shown} is not the expected file: its sha256 is {digest}.")
        return _unpack(digest, copy, shown)


def _copy(chunks: Iterable[bytes], copy: IO[bytes]) -> str:
    """Write `chunks` to `copy`; returns their sha256."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
        copy.write(chunk)
    return digest.hexdigest()


def _unpack(digest: str, file: IO[bytes], shown: str) -> Path:
    return add(digest, lambda target: unpack_bundle(file, target, shown))
