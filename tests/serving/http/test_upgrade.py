"""Requests that offer HTTP/2, as clients in Java do: the offer is ignored, and no request is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson
import pytest

from benchmarks.harness.wire import request
from serving.settings import Settings
from tests.serving.live import live

OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
CLASSIFY = "/v1/classify"


@pytest.fixture
def port(settings: Settings) -> Iterator[int]:
    with live(settings) as (port, _):
        yield port


def asked(port: int, parts: list[bytes], answers: int) -> list[tuple[int, str, bytes]]:
    """Send `parts` one after the other; status, id and body of each answer."""

    async def scenario() -> list[tuple[int, str, bytes]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.02)
        found = []
        async with asyncio.timeout(10):
            for _ in range(answers):
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.split("content-length: ")[1].split("\r\n")[0])
                name = head.split("x-request-id: ")[1].split("\r\n")[0]
                found.append((int(head.split(" ")[1]), name, await reader.readexactly(size)))
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        return found

    return asyncio.run(scenario())


def offering(body: bytes, name: str) -> bytes:
    return request(CLASSIFY, body, "image/png", f"{OFFER}X-Request-ID: {name}\r\n")


def chunked(body: bytes, name: str) -> bytes:
    head = offering(b"", name).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("write", [offering, chunked])
@pytest.mark.parametrize("split", [1, 2, 50])
def test_its_body_is_read_in_any_number_of_parts(
    port: int, pngs: list[bytes], write: object, split: int
) -> None:
    whole = b"".join(write(pngs[0], name) for name in "ab")  # type: ignore[operator]
    whole += request(CLASSIFY, pngs[1], "image/png", "X-Request-ID: c\r\n")
    step = -(-len(whole) // split)
    found = asked(port, [whole[at : at + step] for at in range(0, len(whole), step)], 3)
    assert [(status, name) for status, name, _ in found] == [(200, "a"), (200, "b"), (200, "c")]
    plain = asked(port, [request(CLASSIFY, pngs[0], "image/png")], 1)
    predictions = [orjson.loads(body)["predictions"] for _, _, body in (*found[:2], *plain)]
    assert predictions[0] == predictions[1] == predictions[2]


def test_a_request_in_its_body_is_not_one(port: int) -> None:
    inner = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-ID: inner\r\n\r\n"
    whole = offering(inner, "outer")
    cut = whole.index(inner)
    for parts in ([whole], [whole[:cut], whole[cut:]]):
        ((status, name, _),) = asked(port, parts, 1)
        assert (status, name) == (400, "outer")


def test_one_without_a_body_is_answered_and_the_next_one_too(port: int) -> None:
    get = "GET /livez HTTP/1.1\r\nHost: x\r\n{}X-Request-ID: {}\r\n\r\n"
    both = (get.format(OFFER, "a") + get.format("", "b")).encode()
    assert [(s, name) for s, name, _ in asked(port, [both], 2)] == [(200, "a"), (200, "b")]
