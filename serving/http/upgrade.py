"""Ignoring offers to change the protocol (`Upgrade: h2c`), which clients in Java and curl send.

A server may ignore such an offer (RFC 9110, section 7.8). httptools ends the request after its head and
leaves the body to the new protocol, so its parser is made to go on.
"""

from __future__ import annotations

from typing import Any

import httptools


class Parser:
    """httptools' parser of requests, which goes on after an offer to change the protocol.

    It reports the end of such a request twice if there is a body: see `ends_early`.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._parse_for(protocol)

    def feed_data(self, data: bytes) -> None:
        """Parse `data`; raises HttpParserError."""
        while True:
            try:
                self._feed(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            framing = self._framing()
            if framing:
                self._parse_for(_Headless(self._protocol))
                self._feed(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")

    def ends_early(self) -> bool:
        """Whether the end that is reported now is before the request's body, whose end will be reported."""
        return bool(self.should_upgrade()) and self._framing() != b""

    def _parse_for(self, target: Any) -> None:
        parser = httptools.HttpRequestParser(target)
        # As in uvicorn: pipelined requests may follow one that asks to close the connection.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed = parser.feed_data
        # What uvicorn calls.
        self.should_upgrade = parser.should_upgrade
        self.should_keep_alive = parser.should_keep_alive
        self.get_method = parser.get_method
        self.get_http_version = parser.get_http_version

    def _framing(self) -> bytes:
        """The headers of the request that give the length of its body."""
        return b"".join(
            name + b": " + value + b"\r\n"
            for name, value in self._protocol.headers
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        )


class _Headless:
    """Passes a parser's callbacks on to `protocol`, except those of the first head."""

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
