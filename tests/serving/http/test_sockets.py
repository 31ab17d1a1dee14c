"""What only a real socket shows: streams, clients that leave, clients that dawdle, overload."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from benchmarks import torture
from benchmarks.harness.generator import load
from benchmarks.harness.load import pack
from benchmarks.harness.server import pictures, serving
from benchmarks.harness.wire import Connection, request
from exports.bundle.reader import Bundle
from serving.api.app import create_app
from serving.errors import InvalidImageError
from serving.http.protocol import Protocol
from serving.inference.engine import Engine
from serving.service import Service
from serving.settings import Settings
from tests.serving.api.test_app import as_json
from tests.serving.live import live
from tests.serving.scheduling.test_scheduler import Stage
from tests.serving.tiny_bundle import EXITS

STREAM = "/v1/classify/stream"


@pytest.fixture
def server(settings: Settings) -> Iterator[tuple[int, Service]]:
    with live(settings) as found:
        yield found


def stage_of(service: Service) -> Stage:
    return Stage(service.models.get(None).engine)


def hold(service: Service, at: int) -> Stage:
    """Keeps samples from stage `at` on until the one returned is opened."""
    stage = stage_of(service)
    stage.hold_at = at
    stage.open.clear()
    return stage


async def until(true: Any, seconds: float = 10) -> None:
    ends = time.perf_counter() + seconds
    while not true():
        assert time.perf_counter() < ends
        await asyncio.sleep(0.005)


# Streams


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


def test_a_stream_tells_each_exit_and_then_the_answer(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, _ = server

    async def scenario() -> None:
        events = await Events.of(port, pngs[3], query="threshold=2&top_k=2")
        found = await events.all()
        assert "text/event-stream" in events.head
        assert [name for name, _ in found] == ["exit"] * EXITS + ["answer", "done"]
        exits = [data for name, data in found if name == "exit"]
        assert list(exits[0]) == [
            *("image", "exit", "exits", "left", "label", "index", "confidence", "top_k"),
            *("elapsed_ms", "macs"),
        ]
        assert [data["exit"] for data in exits] == [1, 2, 3]
        assert [data["left"] for data in exits] == [False, False, True]
        assert [data["macs"] for data in exits] == [1000, 2000, 3000]
        times = [data["elapsed_ms"] for data in exits]
        assert times == sorted(times)
        assert all(len(data["top_k"]) == 2 for data in exits)
        answer = found[EXITS][1]
        connection = await Connection.open("127.0.0.1", port)
        plain = (await connection.post("/v1/classify?threshold=2&top_k=2", pngs[3])).json()
        assert answer["predictions"] == plain["predictions"]
        assert list(answer) == list(plain)

    asyncio.run(scenario())


def test_an_event_comes_while_deeper_stages_still_run(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=2)

    async def scenario() -> None:
        events = await Events.of(port, pngs[0], query="threshold=2")
        name, data = await asyncio.wait_for(events.next(), 5)
        assert (name, data["exit"]) == ("exit", 1)
        stage.open.set()
        assert (await events.all())[-1] == ("done", {})

    asyncio.run(scenario())


def test_run_all_exits_shows_the_exits_behind_the_answer(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, _ = server

    async def scenario() -> None:
        events = await Events.of(port, pngs[0], query="threshold=0&run_all_exits=true")
        found = await events.all()
        assert [name for name, _ in found] == ["exit", "answer", "exit", "exit", "done"]
        left = [data["left"] for name, data in found if name == "exit"]
        assert left == [True, False, False]
        assert found[1][1]["predictions"][0]["exit"] == 1

    asyncio.run(scenario())


def test_images_of_one_stream_leave_one_by_one(
    server: tuple[int, Service], pngs: list[bytes], engine: Engine, images: Any
) -> None:
    port, service = server
    policy = service.models.get(None).policy

    async def scenario() -> None:
        body = orjson.dumps(as_json(pngs[::8])["json"])
        found = await (await Events.of(port, body, "application/json")).all()
        expected = engine.classify(images[::8], policy)
        for image, wanted in enumerate(expected):
            own = [data for name, data in found if name == "exit" and data["image"] == image]
            assert [data["exit"] for data in own] == list(range(1, wanted.exit + 1))
            assert [data["index"] for data in own if data["left"]] == [wanted.index]

    asyncio.run(scenario())


def test_a_stream_that_cannot_begin_is_an_error_like_any_other(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, _ = server

    async def scenario() -> None:
        connection = await Connection.open("127.0.0.1", port)
        refused = await connection.post(STREAM, b"text")
        assert (refused.status, refused.json()["code"]) == (400, "invalid_image")
        refused = await connection.post(f"{STREAM}?colour=red", pngs[0])
        assert (refused.status, refused.json()["code"]) == (400, "invalid_request")

    asyncio.run(scenario())


def test_a_stream_that_fails_on_the_way_says_so(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    engine = service.models.get(None).engine
    usual = engine.run_stage

    def broken(stage: int, inputs: Any) -> Any:
        if stage == 2:
            raise RuntimeError("secret detail")
        return usual(stage, inputs)

    engine.run_stage = broken  # type: ignore[method-assign]

    async def scenario() -> None:
        found = await (await Events.of(port, pngs[0], query="threshold=2")).all()
        assert [name for name, _ in found] == ["exit", "error", "done"]
        assert found[1][1]["code"] == "internal"
        assert "secret" not in found[1][1]["error"]

    asyncio.run(scenario())
    assert 'offramp_requests_total{model="tiny",outcome="internal"} 1.0' in (
        service.metrics.render().decode()
    )


# Clients that leave


@pytest.mark.parametrize("path", ["/v1/classify", STREAM])
def test_what_a_client_that_left_asked_for_is_dropped(
    server: tuple[int, Service], pngs: list[bytes], path: str
) -> None:
    port, service = server
    stage = stage_of(service)
    stage.open.clear()

    async def scenario() -> None:
        connections = [await Connection.open("127.0.0.1", port) for _ in range(5)]
        tasks = [asyncio.create_task(c.post(path, pngs[0])) for c in connections]
        await until(lambda: service.work.pending == 5)
        for task, connection in zip(tasks, connections, strict=True):
            task.cancel()
            connection.close()
        await until(lambda: service.work.pending == 0)
        stage.open.set()
        await asyncio.sleep(0.05)

    asyncio.run(scenario())
    # Two workers had taken what they could; nobody else's image was ever looked at.
    assert all(ran == 1 for ran, _ in stage.batches)
    assert len(stage.batches) <= 2
    assert 'offramp_requests_total{model="tiny",outcome="cancelled"} 5.0' in (
        service.metrics.render().decode()
    )


def test_a_client_that_leaves_in_mid_stream_ends_it(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=2)

    async def scenario() -> None:
        events = await Events.of(port, pngs[0], query="threshold=2")
        await events.next()
        events.writer.transport.abort()
        await until(lambda: service.work.pending == 0)
        stage.open.set()

    asyncio.run(scenario())
    assert not stage.ran(3)
    assert 'offramp_requests_total{model="tiny",outcome="cancelled"} 1.0' in (
        service.metrics.render().decode()
    )


def test_a_stream_left_after_its_answer_is_counted_once(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=2)

    async def scenario() -> None:
        events = await Events.of(port, pngs[0], query="threshold=0&run_all_exits=true")
        assert [(await events.next())[0] for _ in range(2)] == ["exit", "answer"]
        events.writer.transport.abort()
        await until(lambda: service.work.pending == 0)
        stage.open.set()

    asyncio.run(scenario())
    shown = service.metrics.render().decode()
    assert 'offramp_requests_total{model="tiny",outcome="ok"} 1.0' in shown
    assert 'outcome="cancelled"' not in shown


def test_a_stream_whose_client_leaves_before_its_head_is_dropped(
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
        await until(lambda: service.work.pending == 0)
        stage.open.set()

    asyncio.run(scenario())
    service.close()
    assert not stage.ran(3)
    assert 'offramp_requests_total{model="tiny",outcome="cancelled"} 1.0' in (
        service.metrics.render().decode()
    )


@pytest.mark.parametrize("path", ["/v1/classify", STREAM, "/v2/models/tiny/infer"])
def test_a_client_that_leaves_amid_its_body_is_counted(
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


# What is sent ahead


@pytest.mark.parametrize(
    "second", [b"GET http://h HTTP/1.1\r\n\r\n", b"GET http://h:99999999/ HTTP/1.1\r\n\r\n", b"\0"]
)
def test_what_is_no_request_gets_no_answer_in_place_of_one_before(
    server: tuple[int, Service], pngs: list[bytes], second: bytes
) -> None:
    port, service = server
    stage = stage_of(service)
    stage.open.clear()

    async def scenario() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/v1/classify", pngs[0], "image/png"))
        await until(lambda: service.work.pending == 1)
        writer.write(second)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        stage.open.set()
        # On its own it is told what is wrong with it.
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


def test_a_connection_that_was_reset_leaves_nothing_behind(server: tuple[int, Service]) -> None:
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


@pytest.mark.parametrize("path", ["/v1/classify", STREAM, "/v2/models/tiny/infer"])
def test_a_bad_image_goes_with_its_answer(server: tuple[int, Service], path: str) -> None:
    """Not only when Python collects cycles, which it seldom does here: that would keep all their bytes."""
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


# Time


def test_a_deadline_is_kept_over_http(server: tuple[int, Service], pngs: list[bytes]) -> None:
    port, service = server
    stage = hold(service, at=2)

    async def scenario() -> None:
        connection = await Connection.open("127.0.0.1", port)
        query = "/v1/classify?threshold=2&deadline_ms=150"
        (found,) = (await connection.post(query, pngs[0])).json()["predictions"]
        assert (found["exit"], found["reason"]) == (1, "deadline")
        # Both workers are held now, so that nobody reaches any exit.
        second = await Connection.open("127.0.0.1", port)
        await second.post(query, pngs[1])
        late = await connection.post(query, pngs[2])
        assert (late.status, late.json()["code"]) == (504, "deadline_exceeded")
        stage.open.set()

    asyncio.run(scenario())


@pytest.mark.serial
def test_overload_is_refused_within_milliseconds(bundle_path: Any, pngs: list[bytes]) -> None:
    with live(Settings(bundles=(bundle_path,), workers=1, max_queue_ms=1e-3)) as (port, service):
        stage = stage_of(service)
        stage.open.clear()

        async def scenario() -> None:
            connections = [await Connection.open("127.0.0.1", port) for _ in range(100)]
            tasks = [asyncio.create_task(c.post("/v1/classify", pngs[0])) for c in connections]
            await until(lambda: service.work.pending > 0)
            last = await Connection.open("127.0.0.1", port)
            times = []
            for _ in range(20):
                began = time.perf_counter()
                reply = await last.post("/v1/classify", pngs[0])
                times.append(time.perf_counter() - began)
                assert reply.status == 429
                assert reply.json()["code"] == "over_capacity"
                assert int(reply.headers["retry-after"]) >= 1
            assert sorted(times)[10] < 0.02
            stage.open.set()
            statuses = {(await task).status for task in tasks}
            assert statuses == {200, 429}

        asyncio.run(scenario())


def test_clients_that_dawdle_hold_nobody_up(server: tuple[int, Service], pngs: list[bytes]) -> None:
    port, _ = server

    async def scenario() -> None:
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for _, writer in slow:
            writer.write(request("/v1/classify", pngs[0], "image/png")[:-10])
        quick = await Connection.open("127.0.0.1", port)
        for _ in range(20):
            reply = await asyncio.wait_for(quick.post("/v1/classify", pngs[0]), 2)
            assert reply.status == 200
        for reader, writer in slow:
            writer.write(pngs[0][-10:])
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

    asyncio.run(scenario())


def test_readiness_waits_for_warm_and_measured_models(settings: Settings) -> None:
    phases = []

    def opened(service: Service, usual: Any) -> Any:
        def look(engine: Engine) -> Any:
            phases.append(service.phase)
            return usual(engine)

        return look

    service = Service(settings)
    service.work.open = opened(service, service.work.open)  # type: ignore[method-assign]
    service.load()
    assert phases == ["starting"]
    assert service.phase == "ready"
    service.close()


# Everything at once


def test_nobody_gets_anothers_answer(bundle_path: Any, bundle: Bundle) -> None:
    files = pictures(bundle.manifest.input, 40)
    expected = torture.Expected.of(bundle, files)
    with serving(bundle_path, max_queue_ms=60_000, max_images=8) as (port, _):
        tally = asyncio.run(torture.torture(port, files, expected, requests=3000, connections=64))
    assert tally.wrong == []
    assert tally.outcomes["200"] + tally.outcomes["cancelled"] == 3000
    assert tally.outcomes["cancelled"] > 50


def test_the_load_generator_tells_what_came_back(
    server: tuple[int, Service], pngs: list[bytes], tmp_path: Any
) -> None:
    port, _ = server
    pack(pngs, tmp_path / "images.npz")
    for options in (["--rate", "100"], ["--closed", "2"]):
        found = load(port, tmp_path / "images.npz", 0.5, *options)
        assert set(found["statuses"]) == {"200"}
        assert len(found["latencies"]) == len(found["answers"]) == found["offered"]
        assert all(latency > 0 for latency in found["latencies"])
    assert threading.active_count() < 20
