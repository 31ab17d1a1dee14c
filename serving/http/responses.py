"""Responses that are sent without the application."""

from __future__ import annotations

from collections.abc import Iterable

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from serving.connection import Answer, header_lines
from serving.errors import ServingError
from serving.http.coalescing import CoalescingTransport

# Before 0.53, uvicorn's `keep_alive` does not depend on what the client asked for.
LATE_CLOSE = tuple(map(int, uvicorn.__version__.split(".")[:2])) < (0, 53)


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
    return b"".join((STATUS_LINE[error.status], header_lines(pairs), b"\r\n", body))


def send_whole(
    cycle: RequestResponseCycle, transport: CoalescingTransport, answer: Answer, *, closing: bool
) -> None:
    """Send `answer` on `transport` as the request's `cycle` would send it; `closing` closes the connection
    behind it."""
    if closing or (LATE_CLOSE and asks_to_close(cycle.scope["headers"])):
        cycle.keep_alive = False
    parts = (
        STATUS_LINE[answer.status],
        header_lines(cycle.default_headers),
        answer.header_lines,
        b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n",
        answer.body,
    )
    transport.write_now(b"".join(parts))
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        transport.close()
    cycle.on_response()
