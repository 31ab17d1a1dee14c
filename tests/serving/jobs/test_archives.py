"""Archives and forms of unknown origin are read within limits, or refused."""

from __future__ import annotations

import gzip
import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.errors import InvalidRequestError, ServingError, TooLargeError, UnsupportedTypeError
from serving.jobs.archives import read_archive
from serving.jobs.images import ImageWriter, group_images, read_images, stored_images
from serving.jobs.multipart import read_multipart
from tests.serving.jobs.archives import tarred, zipped

FILES = {"a.png": b"first", "b/ü.png": b"second" * 1000, "n" * 200: b"", "later.png": b"fourth"}
MAX_IMAGES, MAX_IMAGE_BYTES, MAX_BYTES = 5, 10_000, 50_000


def writer(directory: Path) -> ImageWriter:
    return ImageWriter(
        directory,
        max_images=MAX_IMAGES,
        max_image_bytes=MAX_IMAGE_BYTES,
        max_bytes=MAX_BYTES,
        claim=lambda size: None,
    )


def read(content: bytes, directory: Path) -> dict[str, bytes]:
    """The files in an archive as they are stored."""
    images = writer(directory)
    read_archive(io.BytesIO(content), images, MAX_IMAGES, MAX_BYTES)
    images.close()
    found = stored_images(directory)
    contents = read_images(directory, found)
    return {image.name: content for image, content in zip(found, contents, strict=True)}


@pytest.mark.parametrize(
    "content",
    [
        zipped(FILES),
        tarred(FILES, format=tarfile.GNU_FORMAT),
        tarred(FILES, format=tarfile.PAX_FORMAT),
        tarred(FILES, "gz"),
    ],
    ids=["zip", "gnu tar", "pax tar", "tar.gz"],
)
def test_files_are_stored_in_their_order(content: bytes, tmp_path: Path) -> None:
    found = read(content, tmp_path)
    assert list(found.items()) == list(FILES.items())


def test_folders_and_what_macos_adds_are_left_out(tmp_path: Path) -> None:
    files = {"__MACOSX/a.png": b"x", "b/._a.png": b"x", "b/": b"", "b/a.png": b"image"}
    assert read(zipped(files), tmp_path) == {"b/a.png": b"image"}


def test_names_are_labels_not_paths(tmp_path: Path) -> None:
    assert read(zipped({"../../outside": b"x"}), tmp_path) == {"../../outside": b"x"}
    assert {file.name for file in tmp_path.iterdir()} == {"images", "images.jsonl"}


def test_an_image_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    found = read(zipped({"large": bytes(MAX_IMAGE_BYTES + 1), "small": b"image"}), tmp_path)
    assert found == {"large": b"", "small": b"image"}
    assert [image.too_large for image in stored_images(tmp_path)] == [True, False]


def with_type(kind: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return content.getvalue()


def long_attributes() -> bytes:
    """A tar whose member of attributes would have 8 GiB."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def endless_attributes() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 512
    return info.tobuf(tarfile.USTAR_FORMAT) + b"0 a=b\n".ljust(512, b"\0") + bytes(1024)


def with_size(size: str) -> bytes:
    """A tar with a file whose attributes say `size`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"size": size}
        archive.addfile(info)
    return content.getvalue()


def with_wrong_checksum() -> bytes:
    """A tar.gz that is not compressed, with one byte of its image changed."""
    content = gzip.compress(tarred({"a": b"image"}), 0)
    return content.replace(b"image", b"imagf")


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (zipped({"a": bytes(MAX_BYTES + 1)}), TooLargeError, "50000 bytes"),
        (tarred({"a": bytes(MAX_BYTES + 1)}, "gz"), TooLargeError, "bytes allowed"),
        (gzip.compress(b"text" * 1000), InvalidRequestError, "damaged"),
        (zipped({str(n): b"" for n in range(6)}), InvalidRequestError, "at most 5"),
        (tarred({str(n): b"" for n in range(6)}), InvalidRequestError, "at most 5"),
        (zipped({str(n): b"" for n in range(11)}), InvalidRequestError, "more than the 10"),
        (zipped({"a": b"x" * 100})[:-5], InvalidRequestError, "zip archive"),
        (zipped({"a": b"x" * 100}).replace(b"a", b"b", 1), InvalidRequestError, "zip archive"),
        (tarred({"a": b"x" * 1000})[:1024], InvalidRequestError, "ends before"),
        (tarred({"a": b"x"}, "gz")[:30], InvalidRequestError, "gzip"),
        (tarred({"a": b"x"}, "gz")[:-8], InvalidRequestError, "gzip"),
        (with_wrong_checksum(), InvalidRequestError, "gzip"),
        (gzip.compress(tarred({"a": b"x"}) + bytes(2 * MAX_BYTES)), TooLargeError, "bytes allowed"),
        (with_size("²"), InvalidRequestError, "damaged"),
        (with_size("1" * 5000), InvalidRequestError, "damaged"),
        (with_size("-1"), InvalidRequestError, "damaged"),
        (with_type(tarfile.SYMTYPE), InvalidRequestError, "neither a plain file"),
        (with_type(tarfile.CHRTYPE), InvalidRequestError, "neither a plain file"),
        (long_attributes(), InvalidRequestError, "too long"),
        (endless_attributes(), InvalidRequestError, "damaged"),
        (tarred({"a": b""}).replace(b"a", b"b", 1), InvalidRequestError, "damaged"),
        (b"text", UnsupportedTypeError, "neither a zip"),
        (b"", UnsupportedTypeError, "neither a zip"),
    ],
    ids=itertools.count(),
)
def test_others_are_refused(
    content: bytes, error: type[ServingError], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        read(content, tmp_path)


def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


DISPOSITION = b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (form(DISPOSITION + b"\r\nimage", end=b""), "last boundary"),
        (form(b'Content-Disposition: form-data; name="files"\r\n\r\ntext'), "called 'files'"),
        (
            form(b'Content-Disposition: form-data; name="a"; filename="b"\r\n\r\nx'),
            "called 'files'",
        ),
        (form(b"\r\nimage"), "called 'files'"),
        (
            form(DISPOSITION + b"".join(b"a%d: %s\r\n" % (n, b"x" * 4000) for n in range(3))),
            "headers",
        ),
        (b"text", "malformed"),
    ],
)
def test_a_malformed_form_is_refused(body: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        read_multipart(io.BytesIO(body), b"x", writer(tmp_path))


def sizes(directory: Path, contents: Callable[[int], bytes], count: int) -> list[int]:
    images = ImageWriter(
        directory,
        max_images=100,
        max_image_bytes=1 << 24,
        max_bytes=1 << 26,
        claim=lambda size: None,
    )
    for number in range(count):
        images.begin(str(number))
        images.write(contents(number))
        images.end()
    images.close()
    return [len(members) for members in group_images(stored_images(directory))]


def test_groups_are_small_in_number_and_bytes(tmp_path: Path) -> None:
    assert sizes(tmp_path, lambda number: b"x", 70) == [32, 32, 6]
    assert sizes(tmp_path, lambda number: bytes((number == 1) * 9_000_000), 4) == [1, 1, 2]
