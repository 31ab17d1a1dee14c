"""The files of a multipart body that is on disk, part by part."""

from __future__ import annotations

from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.errors import InvalidRequestError
from serving.jobs.images import ImageWriter

FIELD = b"files"
CHUNK_BYTES = 1 << 18
# Of one part.
MAX_HEADER_BYTES = 8192


class _Parts:
    """The parser's callbacks: collects the headers of a part, and passes its content to `images`."""

    def __init__(self, images: ImageWriter) -> None:
        self._images = images
        self._field = b""
        self._value = b""
        self._disposition = b""
        self._header_bytes = 0
        self.ended = False

    def on_part_begin(self) -> None:
        self._disposition, self._header_bytes = b"", 0

    def on_header_begin(self) -> None:
        self._field = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD or b"filename" not in options:
            raise InvalidRequestError(
                f"Every part of a multipart body must be a file called {FIELD.decode()!r}."
            )
        self._images.begin(options[b"filename"].decode("utf-8", "backslashreplace"))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._images.write(data[start:end])

    def on_part_end(self) -> None:
        self._images.end()

    def on_end(self) -> None:
        self.ended = True

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise InvalidRequestError("A part of the multipart body has too long headers.")


def read_multipart(file: IO[bytes], boundary: bytes, images: ImageWriter) -> None:
    """Store the parts of `file`, each a file called `files`; raises InvalidRequestError."""
    parts = _Parts(images)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.on_part_begin,
            "on_header_begin": parts.on_header_begin,
            "on_header_field": parts.on_header_field,
            "on_header_value": parts.on_header_value,
            "on_header_end": parts.on_header_end,
            "on_headers_finished": parts.on_headers_finished,
            "on_part_data": parts.on_part_data,
            "on_part_end": parts.on_part_end,
            "on_end": parts.on_end,
        },
    )
    try:
        while content := file.read(CHUNK_BYTES):
            parser.write(content)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequestError("The multipart body is malformed.") from error
    if not parts.ended:
        raise InvalidRequestError("The multipart body ends before its last boundary.")
