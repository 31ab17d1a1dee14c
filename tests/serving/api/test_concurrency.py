"""Many requests at once: the event loop stays free, and accepted work is finished."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from serving.inference.engine import Engine
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.requests import (
    CLASSIFY,
    as_json,
    as_raw,
    assert_error,
)


class Gate:
    """Stands in for an engine's stage 1: waits until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self._run = engine.run_stage
        engine.run_stage = self.run  # type: ignore[method-assign]

    def run(self, *arguments: Any) -> Any:
        self.entered.set()
        assert self.opened.wait(10)
        return self._run(*arguments)


def test_probes_answer_while_the_engine_is_busy(client: Client, pngs: list[bytes]) -> None:
    gate = Gate(client.app.state.service.models.get(None).engine)

    async def scenario() -> None:
        busy = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
        assert await asyncio.to_thread(gate.entered.wait, 10)
        assert (await client.http.get("/livez")).status_code == 200
        assert not busy.done()
        gate.opened.set()
        assert (await busy).status_code == 200

    client.runner.run(scenario())


@pytest.mark.serial
def test_decoding_does_not_block_the_event_loop(
    client: Client, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        decoding.set()
        assert go_on.wait(20)
        raise RuntimeError("never mind")

    monkeypatch.setattr("serving.scheduling.execution.decode", slow)

    async def scenario() -> None:
        busy = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
        assert await asyncio.to_thread(decoding.wait, 20)
        assert (await client.http.get("/livez")).status_code == 200
        assert not busy.done()
        go_on.set()
        await busy

    client.runner.run(scenario())


def test_requests_beyond_the_queue_are_refused_at_once(bundle_path: Any, pngs: list[bytes]) -> None:
    limited = Settings(bundles=(bundle_path,), workers=1, max_queue_ms=1e-3)
    with running(limited) as client:
        gate = Gate(client.app.state.service.models.get(None).engine)

        async def scenario() -> None:
            first = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
            assert await asyncio.to_thread(gate.entered.wait, 10)
            refused = await client.http.post(CLASSIFY, **as_json(pngs[:2]))
            assert_error(refused, 429, "over_capacity")
            assert refused.headers["Retry-After"] == "1"
            gate.opened.set()
            assert (await first).status_code == 200
            again = await client.http.post(CLASSIFY, **as_json(pngs[:2]))
            assert again.status_code == 200

        client.runner.run(scenario())


def test_stopping_finishes_accepted_work(bundle_path: Any, pngs: list[bytes]) -> None:
    with running(Settings(bundles=(bundle_path,), workers=1)) as client:
        gate = Gate(client.app.state.service.models.get(None).engine)

        async def scenario() -> None:
            busy = asyncio.create_task(client.http.post(CLASSIFY, **as_raw(pngs[0])))
            assert await asyncio.to_thread(gate.entered.wait, 10)
            closing = asyncio.create_task(asyncio.to_thread(client.app.state.service.close))
            await asyncio.sleep(0.05)
            assert not closing.done()
            gate.opened.set()
            await closing
            assert (await busy).status_code == 200

        client.runner.run(scenario())


def test_mixed_requests_at_once_each_get_their_own_answer(
    client: Client, pngs: list[bytes]
) -> None:
    queries = ["threshold=0", "threshold=2", "mode=ensemble", "max_exit=2"]
    wanted = {
        (i, query): client.post(f"{CLASSIFY}?{query}", **as_raw(pngs[i])).json()["predictions"]
        for i in range(0, 40, 10)
        for query in queries
    }

    async def ask(i: int, query: str) -> None:
        answer = await client.http.post(f"{CLASSIFY}?{query}", **as_raw(pngs[i]))
        assert answer.json()["predictions"] == wanted[i, query]

    async def scenario() -> None:
        await asyncio.gather(*(ask(*key) for key in wanted for _ in range(3)))

    client.runner.run(scenario())
