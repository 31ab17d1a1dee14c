"""Clients that disconnect: their work is dropped and counted, and their memory is freed."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from benchmarks.harness.wire import Connection, request
from serving.api.app import create_app
from serving.errors import InvalidImageError
from serving.http.protocol import Protocol
from serving.service import Service
from serving.settings import Settings
from tests.serving.http.events import STREAM, Events
from tests.serving.http.raw import GET, post
from tests.serving.stages import hold, stage_of, until


@pytest.mark.parametrize("path", ["/v1/classify", STREAM])
def test_the_work_of_a_client_that_disconnected_is_cancelled(
    server: tuple[int, Service], pngs: list[bytes], path: str
) -> None:
    port, service = server
    stage = stage_of(service)
    stage.open.clear()

    async def scenario() -> None:
        connections = [await Connection.open("127.0.0.1", port) for _ in range(5)]
        tasks = [asyncio.create_task(c.post(path, pngs[0])) for c in connections]
        await until(lambda: service.dispatcher.pending == 5)
        for task, connection in zip(tasks, connections, strict=True):
            task.cancel()
            connection.close()
        await until(lambda: service.dispatcher.pending == 0)
        stage.open.set()
        await asyncio.sleep(0.05)

    asyncio.run(scenario())
    # The two workers had each taken one image; no other was decoded.
    assert all(ran == 1 for ran, _ in stage.batches)
    assert len(stage.batches) <= 2
    assert 'offramp_requests_total{model="tiny",outcome="cancelled"} 5.0' in (
        service.metrics.render().decode()
    )


def test_a_client_that_disconnects_during_a_stream_ends_it(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=2)

    async def scenario() -> None:
        events = await Events.of(port, pngs[0], query="threshold=2")
        await events.next()
        events.writer.transport.abort()
        await until(lambda: service.dispatcher.pending == 0)
        stage.open.set()

    asyncio.run(scenario())
    assert not stage.ran(3)
    assert 'offramp_requests_total{model="tiny",outcome="cancelled"} 1.0' in (
        service.metrics.render().decode()
    )


def test_a_disconnect_after_the_answer_of_a_stream_is_not_counted(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=2)

    async def scenario() -> None:
        events = await Events.of(port, pngs[0], query="threshold=0&run_all_exits=true")
        assert [(await events.next())[0] for _ in range(2)] == ["exit", "answer"]
        events.writer.transport.abort()
        await until(lambda: service.dispatcher.pending == 0)
        stage.open.set()

    asyncio.run(scenario())
    shown = service.metrics.render().decode()
    assert 'offramp_requests_total{model="tiny",outcome="ok"} 1.0' in shown
    assert 'outcome="cancelled"' not in shown


def test_a_stream_whose_client_disconnects_before_its_head_is_cancelled(
    settings: Settings, pngs: list[bytes]
) -> None:
    app = create_app(settings)
    service: Service = app.state.service
    service.load()
    stage = hold(service, at=2)
    scope = {
        **{"type": "http", "method": "POST", "path": STREAM, "query_string": b"threshold=2"},
        **{"http_version": "1.1", "headers": [(b"content-type", b"image/png")], "app": app},
        "asgi": {"version": "3.0", "spec_version": "2.4"},
    }
    messages = iter([{"type": "http.request", "body": pngs[0]}])

    async def receive() -> dict[str, Any]:
        found = next(messages, None)
        return found or await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        raise OSError

    async def scenario() -> None:
        await app(scope, receive, send)  # type: ignore[arg-type]
        await until(lambda: service.dispatcher.pending == 0)
        stage.open.set()

    asyncio.run(scenario())
    service.close()
    assert not stage.ran(3)
    assert 'offramp_requests_total{model="tiny",outcome="cancelled"} 1.0' in (
        service.metrics.render().decode()
    )


@pytest.mark.parametrize("path", ["/v1/classify", STREAM, "/v2/models/tiny/infer"])
def test_a_client_that_disconnects_while_sending_its_body_is_counted(
    server: tuple[int, Service], pngs: list[bytes], path: str
) -> None:
    port, service = server
    counted = 'offramp_requests_total{model="tiny",outcome="cancelled"} 1.0'

    async def scenario() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(path, pngs[0], "image/png")[:-10])
        await asyncio.sleep(0.1)
        writer.transport.abort()
        await until(lambda: counted in service.metrics.render().decode())

    asyncio.run(scenario())


def test_a_connection_that_was_reset_is_freed(server: tuple[int, Service]) -> None:
    port, _ = server

    def kept() -> int:
        gc.collect()
        return sum(type(found) is Protocol for found in gc.get_objects())

    before = kept()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(65536)
            # Closing it now resets it.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Sooner than an idle connection would be closed.
    asyncio.run(until(lambda: kept() <= before + 2, seconds=3))


@pytest.mark.parametrize("before", [b"", GET])
def test_an_unfinished_body_goes_with_its_client(
    server: tuple[int, Service], before: bytes
) -> None:
    """Without garbage collection, which the server seldom runs: until then the bytes would be kept."""
    port, service = server
    stage = stage_of(service)
    stage.open.clear()

    def kept() -> int:
        found = gc.get_objects()
        return sum(len(cycle.body) for cycle in found if type(cycle) is RequestResponseCycle)

    async def scenario() -> None:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(before + post(bytes(10_000), 20_000))
                await until(lambda: kept() >= 10_000)
        await until(lambda: kept() == 0)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
        stage.open.set()


@pytest.mark.parametrize("path", ["/v1/classify", STREAM, "/v2/models/tiny/infer"])
def test_a_bad_image_goes_with_its_answer(server: tuple[int, Service], path: str) -> None:
    """Without garbage collection, which the server seldom runs: until then the bytes would be kept."""
    port, _ = server

    def kept() -> int:
        return sum(type(found) is InvalidImageError for found in gc.get_objects())

    async def scenario() -> None:
        connection = await Connection.open("127.0.0.1", port)
        for _ in range(20):
            assert (await connection.post(path, b"no image")).status == 400
        await until(lambda: kept() <= 2)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()
