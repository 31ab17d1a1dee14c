"""Responses that are sent without the application."""

from __future__ import annotations

from collections.abc import Iterable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.errors import ServingError


def asks_to_close(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request's `headers` ask to close the connection after the answer."""
    return any(
        name == b"connection" and b"close" in map(bytes.strip, value.lower().split(b","))
        for name, value in headers
    )


def error_response(error: ServingError) -> bytes:
    """The whole response to a request that is refused before the application sees it."""
    body = error.body()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **error.headers,
    }
    pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    return response_bytes(error.status, pairs, body)


def response_bytes(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """A response as it is sent."""
    lines = [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
