"""Noticing a client that does not read its answers."""

from __future__ import annotations


class Reader:
    """How a client reads what it is sent, from one check of its connection to the next."""

    def __init__(self, now: float) -> None:
        """`now` is monotonic."""
        self._last_read = now
        self._unsent_bytes = 0

    def has_stopped(self, unsent_bytes: int, now: float, timeout: float) -> bool:
        """Whether there are bytes to send, and the client has read none for `timeout` seconds."""
        if unsent_bytes == 0 or unsent_bytes < self._unsent_bytes:
            self._last_read = now
        self._unsent_bytes = unsent_bytes
        return unsent_bytes > 0 and now - self._last_read > timeout
