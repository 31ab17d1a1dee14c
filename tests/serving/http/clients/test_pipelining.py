"""Requests and other bytes that arrive before the answer to an earlier request."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from benchmarks.harness.wire import request
from serving.http.protocol import MAX_PIPELINED
from serving.service import Service
from tests.serving.http.raw import GET, assert_refused, post, read_all
from tests.serving.stages import stage_of, until

CHUNKED = request("/v1/classify", b"", "image/png").replace(
    b"Content-Length: 0", b"Transfer-Encoding: chunked"
)
WRONG = [
    b"GET http://h HTTP/1.1\r\n\r\n",
    b"GET http://h:99999999/ HTTP/1.1\r\n\r\n",
    b"\0",
    CHUNKED + b"nonsense\r\n",
]


@pytest.mark.parametrize("second", WRONG)
def test_what_is_no_request_is_refused_after_the_answer_to_an_earlier_request(
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
        await asyncio.sleep(0.05)
        # It ends the connection, so what follows is no request either.
        writer.write(request("/v1/classify", pngs[0], "image/png"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        stage.open.set()
        assert statuses(await asyncio.wait_for(reader.read(), 5)) == [200, 400]
        # Without an earlier request it is answered at once.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(second + b"\r\n\r\n")
        assert b"HTTP/1.1 400 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [GET, post(b"no image")])
def test_requests_beyond_the_limit_are_refused_after_the_answers_to_those_within(
    server: tuple[int, Service], first: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), timeout=20) as connection:
        connection.sendall(first + 99 * GET)
        answer = read_all(connection)
    # One that is being answered, and those that wait for it.
    assert len(statuses(answer)) == 1 + MAX_PIPELINED + 1
    assert statuses(answer)[1:-1] == MAX_PIPELINED * [200]
    last = answer[answer.rindex(b"HTTP/1.1 ") :]
    assert_refused(last, 400, "invalid_request")
    assert b"At most 32 requests" in last


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


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
