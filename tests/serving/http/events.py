"""Reading server-sent events from a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from benchmarks.harness.wire import request

STREAM = "/v1/classify/stream"


class Events:
    """Server-sent events, read one by one from a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = ""

    @classmethod
    async def of(cls, port: int, body: bytes, kind: str = "image/png", query: str = "") -> Events:
        events = cls(*await asyncio.open_connection("127.0.0.1", port))
        events.writer.write(request(f"{STREAM}?{query}", body, kind))
        return events

    async def next(self) -> tuple[str, Any]:
        if not self.head:
            self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            assert self.head.startswith("HTTP/1.1 200"), self.head
        size = int((await self.reader.readline()).strip(), 16)
        content = (await self.reader.readexactly(size + 2))[:-2].decode()
        event, data = content.rstrip("\n").split("\n")
        return event.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))

    async def all(self) -> list[tuple[str, Any]]:
        found = [await self.next()]
        while found[-1][0] != "done":
            found.append(await self.next())
        return found
