"""Clients that have ended their side of the connection and wait for the answer.

A client that has closed the whole connection looks the same until something is sent to it: then its system
resets the connection. So while the answer takes time, something is sent that clients ignore: before the
answer an interim response (RFC 9110, section 15.2), within a stream what the application says (FILLER). The
second one fails if the first caused a reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Before each of the first two; later ones come half as often each time.
PROBE_S = 0.25


class HalfCloseProbe:
    """Writes what `content` returns, until it is stopped or that is None."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        write: Callable[[bytes], None],
        content: Callable[[], bytes | None],
    ) -> None:
        """`content` returns bytes that mean nothing to the client at this point of the connection."""
        self._loop = loop
        self._write = write
        self._content = content
        self._sent = 0
        self._timer = loop.call_later(PROBE_S, self._send)

    def stop(self) -> None:
        """Send nothing more."""
        self._timer.cancel()

    def _send(self) -> None:
        content = self._content()
        if content is None:
            return
        self._write(content)
        self._timer = self._loop.call_later(PROBE_S * 2**self._sent, self._send)
        self._sent += 1
