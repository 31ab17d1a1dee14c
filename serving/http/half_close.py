"""Clients that have ended their side of the connection and wait for the answer.

A client that has closed the whole connection looks the same until something is sent to it: then its system
resets the connection. So while the answer takes time, something is sent that clients ignore: before the
answer an interim response (RFC 9110, section 15.2), within a stream what the application says (FILLER). The
second one fails if the first caused a reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.connection import EXTENSION, FILLER

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Before each of the first two; later ones come half as often each time.
PROBE_S = 0.25


class HalfCloseProbe:
    """Sends what clients ignore until it is stopped, or until nothing can be sent to the client."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        running: Callable[[], RequestResponseCycle | None],
    ) -> None:
        """`running` returns the request that is being answered."""
        self._loop = loop
        self._transport = transport
        self._running = running
        self._sent = 0
        self._timer = loop.call_later(PROBE_S, self._send)

    def stop(self) -> None:
        """Send nothing more."""
        self._timer.cancel()

    def _send(self) -> None:
        cycle = self._running()
        content = None if cycle is None or self._transport.is_closing() else _ignored(cycle)
        if content is None:
            return
        self._transport.write(content)
        self._timer = self._loop.call_later(PROBE_S * 2**self._sent, self._send)
        self._sent += 1


def _ignored(cycle: RequestResponseCycle) -> bytes | None:
    """What can be sent now without changing the answer of `cycle`, if anything."""
    scope = cast(Scope, cycle.scope)
    if scope["http_version"] != "1.1" or cycle.response_complete:
        return None
    if not cycle.response_started:
        return CONTINUE
    filler: bytes | None = scope["extensions"][EXTENSION].get(FILLER)
    return None if filler is None else b"%x\r\n%b\r\n" % (len(filler), filler)
