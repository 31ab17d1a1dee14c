"""A transport that sends the head of a response together with the beginning of its body.

uvicorn writes the two separately and uvloop sends each at once, which costs a system call, a packet and a
wake-up of the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class CoalescingTransport:
    """Delegates to `transport`, but delays a write until the next one, or until the event loop has run its
    ready callbacks."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        later: Callable[[], bool] = lambda: False,
    ) -> None:
        """If `later` returns True, `close` leaves closing to a later `close_now`."""
        self._transport = transport
        self._loop = loop
        self._later = later
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` after what is held; if nothing is held, hold it."""
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def write_now(self, data: bytes) -> None:
        """Send `data`, which nothing follows at once, after what is held."""
        if self._held:
            data, self._held = self._held + data, b""
        self._transport.write(data)

    def close(self) -> None:
        """Close once everything is sent, or leave that to `close_now`."""
        self._flush()
        if not self._later():
            self._transport.close()

    def close_now(self) -> None:
        """Close once everything is sent."""
        self._flush()
        self._transport.close()

    def write_last(self, data: bytes) -> None:
        """Send `data` after what is held, and then the end of this side of the connection."""
        self.write_now(data)
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet."""
        return len(self._held) + self._transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        data, self._held = self._held, b""
        # It may have been aborted meanwhile.
        if data and not self._transport.is_closing():
            self._transport.write(data)
