"""A minimal HTTP/1.1 client over one kept-alive connection, and the parts that load generators share."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Self

import orjson

HEAD_END = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Reply:
    """A response: its status, its headers in lower case, and its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)


class Connection:
    """One request at a time. Cancelling `post` leaves it unusable: close it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection(host, port))

    async def post(
        self, path: str, body: bytes, kind: str = "image/png", headers: str = ""
    ) -> Reply:
        """POST `body` of media type `kind` with additional header lines, and read the response."""
        self._writer.write(request(path, body, kind, headers))
        head = await self._reader.readuntil(HEAD_END)
        reply = parse_reply(head)
        content = await self._reader.readexactly(int(reply.headers.get("content-length", 0)))
        return Reply(reply.status, reply.headers, content)

    def close(self) -> None:
        """Abort the connection."""
        self._writer.transport.abort()


def request(path: str, body: bytes, kind: str, headers: str = "") -> bytes:
    """A POST request's bytes; every line of `headers` ends with CRLF."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def parse_reply(content: bytes) -> Reply:
    """A response from its bytes; what follows the head is the body."""
    head, _, body = content.partition(HEAD_END)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return Reply(int(first.split(" ", 2)[1]), headers, body)


def reply_size(content: bytes) -> int | None:
    """The size in bytes of the response that `content` begins with, None before its head is complete."""
    end = content.find(HEAD_END)
    if end < 0:
        return None
    length = CONTENT_LENGTH.search(content, 0, end)
    return end + len(HEAD_END) + (int(length[1]) if length else 0)
