"""The early check of admission: without the lock, and before a body is read."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from serving.errors import OverCapacityError
from serving.scheduling.options import RequestOptions
from serving.scheduling.queues import SampleEvent
from serving.scheduling.scheduler import Scheduler
from serving.settings import Settings
from tests.serving.live import live
from tests.serving.scheduling.harness import (
    FIRST,
    FULL,
    POLICIES,
    Images,
    Stage,
    dispatching,
    even_costs,
    numbered,
    run_scenario,
)


def predicted_waits(scheduler: Scheduler) -> list[float]:
    """The waits of normal and low priority from the queues themselves; the lock is held."""
    waits = [queues.waits() for queues in scheduler._selector.model_queues.values()]
    return [sum(own[low] for own in waits) / scheduler._workers for low in (False, True)]


def test_an_idle_server_refuses_nothing_even_with_no_wait_allowed(bundle: Bundle) -> None:
    with dispatching(bundle, max_queue_ms=0, max_queue_bytes=0) as setup:
        setup.dispatcher.check("normal")
        setup.dispatcher.check("low")


def test_the_check_does_not_wait_for_the_lock(bundle: Bundle) -> None:
    with dispatching(bundle) as setup, setup.dispatcher._scheduler._lock:
        thread = threading.Thread(target=setup.dispatcher.check)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()


def test_the_check_follows_the_load_and_accepts_again_after_it(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.1), max_queue_ms=200) as setup:

        async def scenario() -> None:
            for _ in range(3):
                setup.stage.open.clear()
                running = setup.start(numbered(1), FULL)
                await setup.stage.wait_held()
                with pytest.raises(OverCapacityError):
                    setup.dispatcher.check()
                setup.stage.open.set()
                await running
                setup.dispatcher.check()

        run_scenario(scenario)


def test_an_answer_is_reported_after_the_waits_without_its_work(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.1), max_queue_ms=0) as setup:
        scheduler = setup.dispatcher._scheduler
        report, waits = scheduler._report, []

        def report_and_check(events: list[SampleEvent]) -> None:
            if events[-1].last:
                waits.append(scheduler._waits)
            report(events)

        scheduler._report = report_and_check

        async def scenario() -> None:
            for _ in range(5):
                await setup.classify(numbered(1), FULL)

        run_scenario(scenario)
        assert waits == [(0.0, 0.0)] * 5


@pytest.mark.parametrize("finish", ["cancel", "expire"])
def test_the_check_accepts_again_after_requests_that_are_not_computed(
    bundle: Bundle, finish: str
) -> None:
    with dispatching(bundle, costs=even_costs(0.1), max_queue_ms=200) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            running = setup.start(numbered(1), FIRST)
            await setup.stage.wait_held()
            waiting = setup.start(numbered(2), FULL)
            await asyncio.sleep(0)
            with pytest.raises(OverCapacityError):
                setup.dispatcher.check()
            if finish == "cancel":
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            else:
                (request,) = {
                    sample.request
                    for queues in setup.dispatcher._scheduler._selector.model_queues.values()
                    for sample in queues.queue(1, False).waiting
                }
                setup.dispatcher._scheduler.expire(request)
                await asyncio.gather(waiting, return_exceptions=True)
            setup.dispatcher.check()
            setup.stage.open.set()
            await running

        run_scenario(scenario)


@settings(max_examples=30, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.integers(1, 6),
            st.sampled_from(POLICIES),
            st.sampled_from(["normal", "low"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    ),
    workers=st.integers(1, 3),
)
def test_the_published_waits_are_those_of_the_queues_whenever_the_lock_is_free(
    bundle: Bundle, images: Images, requests: list[tuple[int, Policy, str, bool]], workers: int
) -> None:
    with dispatching(bundle, workers=workers) as setup:
        scheduler = setup.dispatcher._scheduler

        def compare() -> None:
            with scheduler._lock:
                assert list(scheduler._waits) == pytest.approx(predicted_waits(scheduler))

        async def scenario() -> None:
            tasks = []
            for count, policy, priority, cancelled in requests:
                task = setup.start(images[:count], policy, priority=priority)
                await asyncio.sleep(0)
                compare()
                if cancelled:
                    task.cancel()
                tasks.append(task)
            while not all(task.done() for task in tasks):
                await asyncio.sleep(0.0005)
                compare()
            await asyncio.gather(*tasks, return_exceptions=True)

        run_scenario(scenario)
        with scheduler._lock:
            assert scheduler._waits == (0.0, 0.0)


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/classify/stream", "/v2/models/tiny/infer"])
def test_under_overload_a_request_is_refused_before_its_body_is_read(
    bundle_path: Path, path: str
) -> None:
    with live(Settings(bundles=(bundle_path,), workers=1, max_queue_ms=1e-3)) as (port, service):
        engine = service.models.get(None).engine
        stage = Stage(engine)

        async def head_only() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            writer.write(f"{head}Content-Length: 10000\r\n\r\n".encode())
            status = await asyncio.wait_for(reader.readline(), 10)
            writer.close()
            return status

        async def scenario() -> None:
            stage.open.clear()
            waiting = service.dispatcher.classify_pixels(engine, numbered(1), RequestOptions(FULL))
            running = asyncio.create_task(waiting)
            await stage.wait_held()
            try:
                assert b" 429 " in await head_only()
            finally:
                stage.open.set()
            await running

        run_scenario(scenario)
