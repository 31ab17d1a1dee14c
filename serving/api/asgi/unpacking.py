"""Unpacking request bodies, within the limit of a body that is not packed."""

from __future__ import annotations

import zlib

from serving.errors import InvalidRequestError, TooLargeError, UnsupportedEncodingError

# zlib's parameter for the format around the compressed data.
GZIP, ZLIB, RAW = 31, 15, -15
FORMATS = {b"gzip": GZIP, b"x-gzip": GZIP, b"deflate": ZLIB}


def unpacker(encoding: bytes, limit: int) -> Unpacker | None:
    """The unpacker for a Content-Encoding, None for identity; raises UnsupportedEncodingError."""
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return None
    if name not in FORMATS:
        raise UnsupportedEncodingError()
    return Unpacker(name.decode(), FORMATS[name], limit)


class Unpacker:
    """Unpacks a body of the encoding `name` part by part, to at most `limit` bytes."""

    def __init__(self, name: str, form: int, limit: int) -> None:
        self._name = name
        self._form = form
        self._limit = limit
        self._stream = zlib.decompressobj(form)
        self._packed = self._unpacked = 0

    def feed(self, content: bytes, *, last: bool) -> bytes:
        """What the next part unpacks to. Raises TooLargeError beyond the limit, InvalidRequestError for what
        is not of the encoding, ends early or has something after its end."""
        try:
            found = self._decompress(content)
        except zlib.error as error:
            raise InvalidRequestError(f"The body is not valid {self._name}.") from error
        self._packed += len(content)
        self._unpacked += len(found)
        if self._unpacked > self._limit:
            raise TooLargeError(f"The body is larger than the {self._limit} bytes allowed.")
        if self._stream.unused_data:
            raise InvalidRequestError(f"The body has data after the end of its {self._name}.")
        if last and not self._stream.eof and self._packed:
            raise InvalidRequestError(f"The body ends before its {self._name} does.")
        return found

    def _decompress(self, content: bytes) -> bytes:
        # One byte more, to notice that the limit is exceeded.
        limit = self._limit - self._unpacked + 1
        try:
            return self._stream.decompress(content, limit)
        except zlib.error:
            # Some clients send "deflate" without zlib's header (RFC 9110, section 8.4.1.2).
            if self._form != ZLIB or self._packed:
                raise
            self._form = RAW
            self._stream = zlib.decompressobj(RAW)
            return self._stream.decompress(content, limit)
