"""Streams: an event for every exit, then the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from benchmarks.harness.wire import Connection
from serving.inference.engine import Engine
from serving.service import Service
from tests.serving.http.events import STREAM, Events
from tests.serving.requests import as_json
from tests.serving.stages import hold
from tests.serving.tiny_bundle import EXITS


def test_a_stream_has_an_event_for_each_exit_and_then_the_answer(
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
            *("image", "exit", "exits", "left", "label", "index", "confidence", "measure"),
            *("top_k", "elapsed_ms", "compute_ms", "macs"),
        ]
        assert [data["exit"] for data in exits] == [1, 2, 3]
        assert [data["left"] for data in exits] == [False, False, True]
        assert [data["macs"] for data in exits] == [1000, 2000, 3000]
        times = [data["elapsed_ms"] for data in exits]
        assert times == sorted(times)
        spent = [data["compute_ms"] for data in exits]
        assert 0 < spent[0] < spent[1] < spent[2] < times[2]
        assert all(len(data["top_k"]) == 2 for data in exits)
        answer = found[EXITS][1]
        assert answer["timing_ms"]["compute"] == spent[2]
        connection = await Connection.open("127.0.0.1", port)
        plain = (await connection.post("/v1/classify?threshold=2&top_k=2", pngs[3])).json()
        assert answer["predictions"] == plain["predictions"]
        assert list(answer) == list(plain)

    asyncio.run(scenario())


def test_an_event_is_sent_while_deeper_stages_still_run(
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


def test_run_all_exits_shows_the_exits_after_the_answer(
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


def test_a_request_that_fails_before_its_stream_begins_is_an_error(
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


def test_a_stream_that_fails_ends_with_an_error_event(
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
