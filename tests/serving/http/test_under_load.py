"""Deadlines, overload, slow clients and many connections at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from benchmarks import torture
from benchmarks.harness.generator import load
from benchmarks.harness.load import pack
from benchmarks.harness.server import generated_images, serving
from benchmarks.harness.wire import Connection, request
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.service import Service
from serving.settings import Settings
from tests.serving.live import live
from tests.serving.stages import hold, stage_of, until


def test_a_deadline_is_kept_over_http(server: tuple[int, Service], pngs: list[bytes]) -> None:
    port, service = server
    stage = hold(service, at=2)

    async def scenario() -> None:
        connection = await Connection.open("127.0.0.1", port)
        query = "/v1/classify?threshold=2&deadline_ms=150"
        (found,) = (await connection.post(query, pngs[0])).json()["predictions"]
        assert (found["exit"], found["reason"]) == (1, "deadline")
        # Both workers are blocked now, so no image reaches an exit.
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
            await until(lambda: service.dispatcher.pending > 0)
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


def test_slow_uploads_do_not_delay_other_requests(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
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
    service.dispatcher.open = opened(service, service.dispatcher.open)  # type: ignore[method-assign]
    service.load()
    assert phases == ["starting"]
    assert service.phase == "ready"
    service.close()


def test_no_answer_reaches_another_request(bundle_path: Any, bundle: Bundle) -> None:
    files = generated_images(bundle.manifest.input, 40)
    expected = torture.Expected.of(bundle, files)
    with serving(bundle_path, max_queue_ms=60_000, max_images=8) as (port, _):
        tally = asyncio.run(torture.torture(port, files, expected, requests=3000, connections=64))
    assert tally.wrong == []
    assert tally.outcomes["200"] + tally.outcomes["cancelled"] == 3000
    assert tally.outcomes["cancelled"] > 50


def test_the_load_generator_reports_the_answers(
    server: tuple[int, Service], pngs: list[bytes], tmp_path: Any
) -> None:
    port, _ = server
    before = threading.active_count()
    pack(pngs, tmp_path / "images.npz")
    for options in (["--rate", "100"], ["--closed", "2"]):
        found = load(port, tmp_path / "images.npz", 0.5, *options)
        assert set(found["statuses"]) == {"200"}
        assert len(found["latencies"]) == len(found["answers"]) == found["offered"]
        assert all(latency > 0 for latency in found["latencies"])
    assert threading.active_count() < before + 5
