"""One image classified without a task, on real sockets: like any other request, in every respect."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.harness.wire import Connection, Reply, parse_reply, reply_size, request
from serving.api.asgi.middleware import RequestContext
from serving.api.routes import classify
from serving.service import Service
from serving.settings import Settings
from tests.serving.live import live
from tests.serving.stages import hold, until

CLASSIFY = "/v1/classify"
Scenario = Callable[[int], Coroutine[Any, Any, None]]


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that pass through the application's layers."""
    paths = []
    usual = RequestContext.__call__

    async def noting(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            paths.append(scope["path"])
        await usual(self, scope, receive, send)

    monkeypatch.setattr(RequestContext, "__call__", noting)
    return paths


@pytest.fixture
def log() -> io.BytesIO:
    return io.BytesIO()


@pytest.fixture
def logged(bundle_path: Path, log: io.BytesIO) -> Iterator[tuple[int, Service]]:
    """A server that writes its access log to `log`."""
    settings = Settings(bundles=(bundle_path,), workers=1, max_body_bytes=200_000, access_log=True)
    with live(settings, access=log) as found:
        yield found


async def _raw(port: int, content: bytes) -> bytes:
    """The response to the bytes of one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    received = b""
    while (size := reply_size(received)) is None or len(received) < size:
        content = await asyncio.wait_for(reader.read(65536), 10)
        assert content, received
        received += content
    writer.transport.abort()
    return received


def _chunked(file: bytes) -> bytes:
    """The same request with a body of unknown length, which only the application can limit."""
    head, _, _ = request(CLASSIFY, b"", "image/png", "X-Request-ID: mine\r\n").partition(
        b"Content-L"
    )
    chunk = b"%x\r\n%b\r\n" % (len(file), file) if file else b""
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"


def _without_times(reply: Reply) -> tuple[Any, ...]:
    body = reply.json()
    times = body.pop("timing_ms", None)
    headers = {**reply.headers, "content-length": "", "date": "", "server-timing": ""}
    return reply.status, list(headers.items()), body, times and list(times)


def test_it_answers_as_the_application_does(
    logged: tuple[int, Service], log: io.BytesIO, pngs: list[bytes], passed: list[str]
) -> None:
    port, service = logged

    async def scenario() -> None:
        for file in (pngs[0], pngs[-1], b"no image", b""):
            direct = request(CLASSIFY, file, "image/png", "X-Request-ID: mine\r\n")
            replies = [
                _without_times(parse_reply(await _raw(port, content)))
                for content in (direct, _chunked(file))
            ]
            assert replies[0] == replies[1]
        # A thread writes the log.
        await until(lambda: log.getvalue().count(b"\n") == 8)

    asyncio.run(scenario())
    assert passed == [CLASSIFY] * 4
    metrics = service.metrics.render().decode()
    assert 'offramp_requests_total{model="tiny",outcome="ok"} 4.0' in metrics
    assert 'offramp_requests_total{model="tiny",outcome="invalid_image"} 4.0' in metrics
    assert 'offramp_rejected_total{reason="invalid_image"} 4.0' in metrics
    lines = [orjson.loads(line) for line in log.getvalue().splitlines()]
    for line in lines:
        for varying in ("time", "duration_ms", "timing_ms"):
            line.pop(varying, None)
    assert lines[::2] == lines[1::2]


def test_whatever_is_not_one_image_passes_through_the_application(
    logged: tuple[int, Service], pngs: list[bytes], passed: list[str]
) -> None:
    port, _ = logged

    async def scenario() -> None:
        connection = await Connection.open("127.0.0.1", port)
        for path, kind, status in (
            (CLASSIFY, "text/plain", 415),
            (f"{CLASSIFY}?model=none", "image/png", 404),
            (f"{CLASSIFY}?top_k=x", "image/png", 400),
            (f"{CLASSIFY}/stream", "image/png", 200),
        ):
            del passed[:]
            assert (await _raw(port, request(path, pngs[0], kind, "")))[9:12] == b"%d" % status
            assert len(passed) == 1
        del passed[:]
        for kind in ("image/jpeg", "application/octet-stream", "IMAGE/x; y=z"):
            assert (await connection.post(CLASSIFY, pngs[0], kind)).status == 200
        assert passed == []

    asyncio.run(scenario())


def test_a_body_that_arrives_in_pieces_is_read_to_its_end(
    logged: tuple[int, Service], pngs: list[bytes], passed: list[str]
) -> None:
    port, _ = logged

    async def scenario() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # More than uvicorn keeps of a body that nobody reads.
        content = request(CLASSIFY, pngs[0] + bytes(150_000), "image/png", "")
        for at in range(0, len(content), 30_000):
            writer.write(content[at : at + 30_000])
            await writer.drain()
            await asyncio.sleep(0.005)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 ")
        writer.transport.abort()

    asyncio.run(scenario())
    assert passed == []


def test_a_client_that_leaves_before_the_end_of_its_body_is_counted(
    logged: tuple[int, Service], log: io.BytesIO, pngs: list[bytes], passed: list[str]
) -> None:
    port, service = logged

    async def scenario() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(CLASSIFY, pngs[0], "image/png", "")[:-1])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()
        await until(lambda: b'"status":499' in log.getvalue())

    asyncio.run(scenario())
    counted = 'offramp_requests_total{model="tiny",outcome="cancelled"} 1.0'
    assert counted in service.metrics.render().decode()
    assert passed == []


def test_a_fault_is_answered_and_the_connection_goes_on(
    logged: tuple[int, Service], pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = logged
    faults: list[type[Exception]] = [ZeroDivisionError, MemoryError]
    usual = classify.compose

    def failing(*arguments: Any, **options: Any) -> Any:
        if faults:
            raise faults.pop(0)
        return usual(*arguments, **options)

    monkeypatch.setattr(classify, "compose", failing)

    async def scenario() -> None:
        connection = await Connection.open("127.0.0.1", port)
        replies = [await connection.post(CLASSIFY, pngs[0]) for _ in range(3)]
        assert [reply.status for reply in replies] == [500, 503, 200]
        assert replies[0].json()["code"] == "internal"
        assert all(reply.headers["x-request-id"] for reply in replies)

    asyncio.run(scenario())


def test_an_image_beyond_the_bytes_that_may_wait_is_refused(
    bundle_path: Path, pngs: list[bytes], passed: list[str]
) -> None:
    small = pngs[0] + bytes(900 - len(pngs[0]))
    settings = Settings(
        bundles=(bundle_path,), workers=1, max_body_bytes=1000, max_queue_bytes=1000
    )
    with live(settings) as (port, service):
        stage = hold(service, at=1)

        async def scenario() -> None:
            connections = [await Connection.open("127.0.0.1", port) for _ in range(3)]
            tasks = []
            for connection in connections:
                tasks.append(asyncio.create_task(connection.post(CLASSIFY, small)))
                await until(lambda: service.dispatcher.pending > 0)
                await asyncio.sleep(0.02)
            await until(lambda: any(task.done() for task in tasks))
            stage.open.set()
            replies = [await task for task in tasks]
            refused = [reply for reply in replies if reply.status == 429]
            assert refused
            assert "retry-after" in refused[0].headers

        asyncio.run(scenario())
    assert passed == []
