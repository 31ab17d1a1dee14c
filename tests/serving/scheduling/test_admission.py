"""Which requests are refused under load."""

from __future__ import annotations

import asyncio
import time

import pytest

from exports.bundle.reader import Bundle
from serving.errors import OverCapacityError
from tests.serving.scheduling.harness import (
    FIRST,
    FULL,
    dispatching,
    even_costs,
    numbered,
    run_scenario,
)


@pytest.mark.serial
def test_a_request_that_would_wait_too_long_is_refused_at_once(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.1), max_queue_ms=1000) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            # 3 stages of 0.1 s each: the fifth one would have to wait for 1.2 s.
            tasks = [setup.start(numbered(1), FULL) for _ in range(4)]
            await asyncio.sleep(0)
            started = time.perf_counter()
            with pytest.raises(OverCapacityError) as refused:
                await setup.classify(numbered(1), FULL)
            assert time.perf_counter() - started < 0.01
            assert refused.value.retry_after == pytest.approx(0.2, abs=0.01)
            assert refused.value.headers["Retry-After"] == "1"
            setup.stage.open.set()
            await asyncio.gather(*tasks)
            await setup.classify(numbered(1), FULL)

        run_scenario(scenario)


def test_the_predicted_wait_depends_on_the_policies(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.1), max_queue_ms=1000) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            # Until exit 1 each takes 0.1 s only, so that eleven are accepted.
            tasks = [setup.start(numbered(1), FIRST) for _ in range(11)]
            await asyncio.sleep(0)
            with pytest.raises(OverCapacityError):
                setup.dispatcher.check()
            setup.stage.open.set()
            await asyncio.gather(*tasks)

        run_scenario(scenario)


def test_low_priority_is_refused_first(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.1), max_queue_ms=200) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            low_priority = setup.start(numbered(1), FULL, priority="low")
            await asyncio.sleep(0)
            with pytest.raises(OverCapacityError):
                setup.dispatcher.check("low")
            setup.dispatcher.check("normal")
            setup.stage.open.set()
            await low_priority

        run_scenario(scenario)


def test_waiting_bytes_are_bounded(bundle: Bundle, pngs: list[bytes]) -> None:
    with dispatching(bundle, max_queue_bytes=10_000) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            first = setup.start_files(pngs[:1], FIRST)
            await setup.stage.wait_held()
            second = setup.start_files(pngs[:1], FIRST)
            await asyncio.sleep(0)
            with pytest.raises(OverCapacityError, match="bytes"):
                await setup.classify_files([b"\0" * 10_000], FIRST)
            setup.stage.open.set()
            await asyncio.gather(first, second)

        run_scenario(scenario)
