"""Requests that offer another protocol (`Upgrade: h2c`, as Java's and curl's do), answered in this one.

Nobody here changes the protocol, so the offer is to be ignored (RFC 9110, 7.8). httptools ends such a request
with its head, and leaves the body to the other protocol.
"""

from __future__ import annotations

from typing import Any

import httptools


class Parser:
    """httptools' parser of requests for `protocol`, which goes on where that one stops at an offer.

    What it says of the end of such a request with a body is too early: see `ends_early`.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._parse_for(protocol)

    def feed_data(self, data: bytes) -> None:
        """Parse what came; raises HttpParserError."""
        while True:
            try:
                self._feed(data)
                return
            except httptools.HttpParserUpgrade as stopped:
                data = data[stopped.args[0] :]
            framing = self._framing()
            if framing:
                self._parse_for(_Headless(self._protocol))
                self._feed(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")

    def ends_early(self) -> bool:
        """Whether the request that is said to have ended has a body still, which will be said to end."""
        return bool(self.should_upgrade()) and self._framing() != b""

    def _parse_for(self, target: Any) -> None:
        parser = httptools.HttpRequestParser(target)
        # As uvicorn has it: an answer to the first of several requests may come after a close.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed = parser.feed_data
        # What uvicorn asks of its parser.
        self.should_upgrade = parser.should_upgrade
        self.should_keep_alive = parser.should_keep_alive
        self.get_method = parser.get_method
        self.get_http_version = parser.get_http_version

    def _framing(self) -> bytes:
        """The lines of the request's head that say how long its body is."""
        return b"".join(
            name + b": " + value + b"\r\n"
            for name, value in self._protocol.headers
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        )


class _Headless:
    """Passes on to `protocol` what a parser finds, but for the first head."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._begun = False

    def on_message_begin(self) -> None:
        if self._begun:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._begun:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._begun:
            self._protocol.on_headers_complete()
        self._begun = True

    def on_body(self, body: bytes) -> None:
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        self._protocol.on_message_complete()
