"""The files of a zip or tar archive of unknown origin.

Nothing is unpacked beyond the limits of `ImageWriter`, and names are labels, never paths.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from typing import IO

from exports.bundle.untrusted.safe_zip import DAMAGE, open_zip
from serving.errors import InvalidRequestError, TooLargeError, UnsupportedTypeError
from serving.jobs.images import ImageWriter

CHUNK_BYTES = 1 << 18
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
GZIP_SIGNATURE = b"\x1f\x8b"
TAR_SIGNATURE = b"ustar"
TAR_SIGNATURE_OFFSET = 257
# Of one member in a zip's directory: a long name and extra fields.
MAX_ENTRY_BYTES = 512
# Of a tar member that has a name or other attributes of the next one.
MAX_ATTRIBUTES_BYTES = 1 << 16
# Of a size in attributes; 10¹⁹ bytes are more than any file has.
MAX_SIZE_DIGITS = 20
PLAIN = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
ATTRIBUTES = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
IGNORED = frozenset({tarfile.DIRTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK})
# What macOS adds.
FOREIGN_FOLDER, FOREIGN_PREFIX = "__MACOSX/", "._"


def read_archive(file: IO[bytes], images: ImageWriter, max_images: int, max_bytes: int) -> None:
    """Store the files in the zip, tar or tar.gz archive `file`: the content decides.

    Folders and what macOS adds are left out. Raises UnsupportedTypeError for another format,
    InvalidRequestError for a damaged archive or one with links or devices, and what `images` raises.
    """
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if head.startswith(ZIP_SIGNATURES):
        _read_zip(file, images, max_images)
        return
    # Blocks of names, folders and the padding at the end, besides the images.
    limit = max_bytes + tarfile.RECORDSIZE + 4 * tarfile.BLOCKSIZE * (max_images + 4)
    if head.startswith(GZIP_SIGNATURE):
        with gzip.GzipFile(fileobj=file) as unpacked:
            source = _Source(unpacked, limit)
            _read_tar(source, images)
            source.read_rest()
    elif head.startswith(TAR_SIGNATURE, TAR_SIGNATURE_OFFSET):
        _read_tar(_Source(file, limit), images)
    else:
        raise UnsupportedTypeError("The body is neither a zip, tar nor tar.gz archive.")


def _read_zip(file: IO[bytes], images: ImageWriter, max_images: int) -> None:
    # Folders count as well.
    entries = 2 * max_images
    try:
        with open_zip(file, entries, entries * MAX_ENTRY_BYTES) as archive:
            for info in archive.infolist():
                if info.is_dir() or _is_foreign(info.filename):
                    continue
                images.begin(info.filename)
                with archive.open(info) as member:
                    while content := member.read(CHUNK_BYTES):
                        images.write(content)
                images.end()
    except DAMAGE as error:
        raise InvalidRequestError(f"The zip archive cannot be read: {error}.") from error


class _Source:
    """Reads whole parts of an archive, at most `limit` bytes in all."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        self._file = file
        self._left = limit
        self._limit = limit

    def read(self, size: int) -> bytes:
        """The next `size` bytes; raises InvalidRequestError if the archive ends before."""
        content = self._read(size)
        if len(content) < size:
            raise InvalidRequestError("The tar archive ends before its end marker.")
        return content

    def read_rest(self) -> None:
        """Read on to the end, where a gzip has its checksum; raises as `read` does."""
        while self._read(CHUNK_BYTES):
            pass

    def _read(self, size: int) -> bytes:
        """At most `size` bytes."""
        try:
            content = self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidRequestError("The gzip of the archive is damaged.") from error
        self._left -= len(content)
        if self._left < 0:
            raise TooLargeError(
                f"The archive unpacks to more than the {self._limit} bytes allowed."
            )
        return content


def _read_tar(source: _Source, images: ImageWriter) -> None:
    """tarfile would read a member with attributes into memory whatever its size."""
    name, size = "", -1
    while (block := source.read(tarfile.BLOCKSIZE)).strip(b"\0"):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except (tarfile.HeaderError, ValueError) as error:
            raise InvalidRequestError("The tar archive is damaged.") from error
        length = size if size >= 0 else info.size
        if length < 0:
            raise InvalidRequestError("The tar archive is damaged.")
        if info.type in ATTRIBUTES:
            attributes = _attributes(_content(source, info.size))
            name = attributes.get("path", name)
            size = _size(attributes["size"]) if attributes.get("size") else size
            continue
        if info.type == tarfile.GNUTYPE_LONGNAME:
            name = _content(source, info.size).rstrip(b"\0").decode("utf-8", "backslashreplace")
            continue
        if info.type in PLAIN and not _is_foreign(name or info.name):
            images.begin(name or info.name)
            _copy(source, length, images)
            images.end()
        elif info.type in PLAIN | IGNORED:
            _copy(source, length, None)
        else:
            raise InvalidRequestError(
                "The tar archive has a member that is neither a plain file nor a folder."
            )
        if info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            name, size = "", -1


def _copy(source: _Source, size: int, images: ImageWriter | None) -> None:
    for start in range(0, size, CHUNK_BYTES):
        content = source.read(min(CHUNK_BYTES, size - start))
        if images is not None:
            images.write(content)
    source.read(-size % tarfile.BLOCKSIZE)


def _content(source: _Source, size: int) -> bytes:
    if not 0 <= size <= MAX_ATTRIBUTES_BYTES:
        raise InvalidRequestError("The tar archive has a name or attributes that are too long.")
    content = source.read(size)
    source.read(-size % tarfile.BLOCKSIZE)
    return content


def _size(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_SIZE_DIGITS):
        raise InvalidRequestError("The tar archive is damaged.")
    return int(digits)


def _attributes(content: bytes) -> dict[str, str]:
    """The records of a pax header (POSIX.1-2001), each `LENGTH KEY=VALUE` and a newline."""
    found = {}
    while content:
        digits, _, _ = content.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 10 else 0
        if not len(digits) < length <= len(content):
            raise InvalidRequestError("The tar archive is damaged.")
        key, _, value = content[len(digits) + 1 : length - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "backslashreplace")
        content = content[length:]
    return found


def _is_foreign(name: str) -> bool:
    return name.startswith(FOREIGN_FOLDER) or name.rpartition("/")[2].startswith(FOREIGN_PREFIX)
