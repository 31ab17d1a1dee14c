"""What is checked of a request's head once it was read."""

from __future__ import annotations

from collections.abc import Sequence

from serving.errors import HeadTooLargeError, InvalidRequestError

# Of the request line and headers, as they are usually written: one space after each colon.
MAX_HEAD_BYTES = 64 * 1024
# Besides method and target: two spaces, the version, the ends of this line and of the head.
REQUEST_LINE_BYTES = len("  HTTP/1.1\r\n\r\n")
HEADER_BYTES = len(": \r\n")


def check_head(
    method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    """Raise HeadTooLargeError if the head is larger than MAX_HEAD_BYTES, InvalidRequestError if it is of
    HTTP/1.1 without exactly one Host (RFC 9112, section 3.2). Names of headers are in lower case."""
    size = REQUEST_LINE_BYTES + len(method) + len(target)
    hosts = 0
    for name, value in headers:
        size += HEADER_BYTES + len(name) + len(value)
        hosts += name == b"host"
    if size > MAX_HEAD_BYTES:
        raise head_too_large()
    if hosts != 1 and version == "1.1":
        raise InvalidRequestError(
            f"A request needs one Host header, but this one has {hosts or 'none'}."
        )


def head_too_large() -> HeadTooLargeError:
    """The error of a head that is too large."""
    return HeadTooLargeError(f"The head is larger than {MAX_HEAD_BYTES} bytes.")
