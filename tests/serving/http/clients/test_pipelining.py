"""Requests and other bytes that arrive before the answer to an earlier request."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.harness.wire import request
from serving.service import Service
from tests.serving.stages import stage_of, until


@pytest.mark.parametrize(
    "second", [b"GET http://h HTTP/1.1\r\n\r\n", b"GET http://h:99999999/ HTTP/1.1\r\n\r\n", b"\0"]
)
def test_bytes_that_are_no_request_get_no_answer_in_place_of_an_earlier_request(
    server: tuple[int, Service], pngs: list[bytes], second: bytes
) -> None:
    port, service = server
    stage = stage_of(service)
    stage.open.clear()

    async def scenario() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/v1/classify", pngs[0], "image/png"))
        await until(lambda: service.dispatcher.pending == 1)
        writer.write(second)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        stage.open.set()
        # Without an earlier request it is answered.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(second + b"\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400 ")

    asyncio.run(scenario())


def test_a_request_that_is_answered_is_not_answered_again_for_its_body(
    server: tuple[int, Service],
) -> None:
    port, _ = server

    async def scenario() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = request("/v1/nowhere", b"", "image/png")
        writer.write(head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        assert b" 404 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"nonsense\r\n")
        assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), 5)

    asyncio.run(scenario())
