"""Requests refused for load by their heads alone, on real sockets."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.harness.wire import Connection, request
from serving.api.asgi.middleware import RequestContext
from serving.service import Service
from serving.settings import Settings
from tests.serving.live import live
from tests.serving.stages import stage_of, until

CLASSIFY = "/v1/classify"


@pytest.fixture
def full(bundle_path: Path) -> Settings:
    """While a single image waits, every other request is refused."""
    return Settings(bundles=(bundle_path,), workers=1, max_queue_ms=1e-3)


@pytest.fixture
def busy(full: Settings, pngs: list[bytes]) -> Iterator[Callable[..., None]]:
    """Runs a scenario, given the port, on a server whose only worker is busy with another image."""
    with live(full) as (port, service):
        yield lambda scenario: asyncio.run(_held(port, service, pngs[0], scenario))


async def _held(
    port: int, service: Service, file: bytes, scenario: Callable[[int], Coroutine[Any, Any, None]]
) -> None:
    async with held(port, service, file):
        await scenario(port)


@asynccontextmanager
async def held(port: int, service: Service, file: bytes) -> AsyncIterator[None]:
    """Keeps the worker busy with an image of another connection, which is answered at the end."""
    stage = stage_of(service)
    stage.open.clear()
    other = await Connection.open("127.0.0.1", port)
    task = asyncio.create_task(other.post(CLASSIFY, file))
    await until(lambda: service.dispatcher.pending > 0)
    try:
        yield
    finally:
        stage.open.set()
    assert (await task).status == 200


def test_the_application_does_not_see_the_request(
    busy: Callable[..., None], pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(port: int) -> None:
        connection = await Connection.open("127.0.0.1", port)
        asked = []
        usual = RequestContext.__call__

        async def asking(self: Any, scope: Any, receive: Any, send: Any) -> None:
            asked.append(scope["path"])
            await usual(self, scope, receive, send)

        monkeypatch.setattr(RequestContext, "__call__", asking)
        assert (await connection.post(CLASSIFY, pngs[0])).status == 429
        assert (await connection.post("/v1/nowhere", pngs[0])).status == 404
        assert asked == ["/v1/nowhere"]

    busy(scenario)


def test_the_refusal_is_like_any_other(busy: Callable[..., None], pngs: list[bytes]) -> None:
    async def scenario(port: int) -> None:
        connection = await Connection.open("127.0.0.1", port)
        for path in (CLASSIFY, f"{CLASSIFY}/stream"):
            reply = await connection.post(path, pngs[0], headers="X-Request-ID: mine\r\n")
            assert reply.status == 429
            assert reply.json()["code"] == "over_capacity"
            assert reply.json()["error"].endswith(".")
            assert reply.headers["retry-after"] == "1"
            assert reply.headers["x-request-id"] == "mine"
            assert reply.headers["content-type"] == "application/json"
            assert "date" in reply.headers
            assert "connection" not in reply.headers
        new = {(await connection.post(CLASSIFY, pngs[0])).headers["x-request-id"] for _ in range(3)}
        assert len(new) == 3

    busy(scenario)


def test_the_connection_serves_further_requests(full: Settings, pngs: list[bytes]) -> None:
    with live(full) as (port, service):

        async def scenario() -> None:
            connection = await Connection.open("127.0.0.1", port)
            async with held(port, service, pngs[0]):
                assert (await connection.post(CLASSIFY, pngs[0])).status == 429
            assert (await connection.post(CLASSIFY, pngs[0])).status == 200

        asyncio.run(scenario())


def test_requests_sent_ahead_are_answered_in_their_order(
    busy: Callable[..., None], pngs: list[bytes]
) -> None:
    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(20):
            path = CLASSIFY if number % 3 else "/v1/nowhere"
            writer.write(request(path, pngs[0], "image/png", f"X-Request-ID: {number}\r\n"))
        for number in range(20):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert f"x-request-id: {number}\r\n".encode() in head
            assert (b" 429 " if number % 3 else b" 404 ") in head
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()

    busy(scenario)


def test_the_connection_closes_if_the_client_asks_for_it_or_the_server_drains(
    busy: Callable[..., None], full: Settings, pngs: list[bytes]
) -> None:
    async def leaving(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(CLASSIFY, pngs[0], "image/png", "Connection: close\r\n"))
        answer = await asyncio.wait_for(reader.read(), 5)
        assert b" 429 " in answer
        assert b"connection: close" in answer
        writer.close()

    busy(leaving)
    with live(full) as (port, service):

        async def draining() -> None:
            async with held(port, service, pngs[0]):
                service.drain()
                connection = await Connection.open("127.0.0.1", port)
                reply = await connection.post(CLASSIFY, pngs[0])
                assert (reply.status, reply.headers["connection"]) == (429, "close")

        asyncio.run(draining())


def test_other_errors_have_priority(busy: Callable[..., None], pngs: list[bytes]) -> None:
    async def scenario(port: int) -> None:
        connection = await Connection.open("127.0.0.1", port)
        statuses = {
            query: (await connection.post(f"{CLASSIFY}?{query}", pngs[0])).status
            for query in ("model=nobody", "top_k=0", "nonsense=1", "priority=low", "model=tiny")
        }
        assert statuses == {
            "model=nobody": 404,
            "top_k=0": 400,
            "nonsense=1": 400,
            "priority=low": 429,
            "model=tiny": 429,
        }

    busy(scenario)


def test_it_is_counted_and_logged(full: Settings, pngs: list[bytes]) -> None:
    lines = io.BytesIO()
    logged = full.model_copy(update={"access_log": True})
    with live(logged, access=lines) as (port, service):

        async def scenario() -> None:
            async with held(port, service, pngs[0]):
                connection = await Connection.open("127.0.0.1", port)
                headers = "X-Request-ID: mine\r\n"
                assert (await connection.post(CLASSIFY, pngs[0], headers=headers)).status == 429

        asyncio.run(scenario())
        exposed = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'offramp_rejected_total{reason="over_capacity"} 1.0' in exposed
    assert 'offramp_requests_total{model="tiny",outcome="over_capacity"} 1.0' in exposed
    found = [orjson.loads(line) for line in lines.getvalue().splitlines()]
    (line,) = [line for line in found if line["request_id"] == "mine"]
    assert (line["status"], line["code"], line["model"]) == (429, "over_capacity", "tiny")
    assert (line["method"], line["path"], line["client"]) == ("POST", CLASSIFY, "127.0.0.1")
    assert line["duration_ms"] >= 0


def test_a_refusal_has_a_span_with_tracing(full: Settings, pngs: list[bytes]) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    traced = full.model_copy(update={"otel": True})
    with live(traced, tracer=provider) as (port, service):

        async def scenario() -> None:
            async with held(port, service, pngs[0]):
                connection = await Connection.open("127.0.0.1", port)
                assert (await connection.post(CLASSIFY, pngs[0])).status == 429

        asyncio.run(scenario())
    codes = {
        span.attributes["offramp.code"]
        for span in spans.get_finished_spans()
        if "offramp.code" in (span.attributes or {})
    }
    assert codes == {"over_capacity"}


def test_refusals_that_are_not_read_use_no_memory(
    busy: Callable[..., None], pngs: list[bytes]
) -> None:
    async def scenario(port: int) -> None:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        _, writer = await asyncio.open_connection(sock=deaf, limit=1)
        ask = request(CLASSIFY, pngs[0], "image/png")

        async def send(requests: int) -> None:
            for _ in range(requests // 20):
                writer.write(ask * 20)
                await asyncio.wait_for(writer.drain(), 1)

        # The server reads no more once the buffers of its answers are full.
        with pytest.raises(TimeoutError):
            await send(100_000)
        writer.transport.abort()

    busy(scenario)
