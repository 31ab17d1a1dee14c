"""What ends: cancelled requests, failed requests, retired engines."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from exports.bundle.reader import Bundle
from serving.errors import DeadlineExceededError, InvalidImageError, OverCapacityError
from serving.inference.engine import Engine
from serving.scheduling.costs import MAX_BATCH
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import BatchResult, RequestOptions
from serving.scheduling.queues import ScheduledRequest
from serving.telemetry.metrics import Metrics
from tests.serving.scheduling.harness import FULL, dispatching, numbered, run_scenario
from tests.serving.tiny_bundle import EXITS


def test_cancelled_requests_are_not_computed(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            running = setup.start(numbered(1), FULL)
            await setup.stage.wait_held()
            waiting = setup.start(numbered(5)[1:], FULL)
            await asyncio.sleep(0)
            assert setup.dispatcher.pending == 5
            for task in (running, waiting):
                task.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)
            assert setup.dispatcher.pending == 0
            setup.stage.open.set()

        run_scenario(scenario)
    # The one that was running finishes its stage, and goes no deeper.
    assert setup.stage.batches == [(1, [0])]


@pytest.mark.parametrize("error", [InvalidImageError, DeadlineExceededError, OverCapacityError])
def test_failed_requests_are_freed_without_the_garbage_collector(
    bundle: Bundle, error: type[Exception]
) -> None:
    def requests() -> int:
        return sum(issubclass(type(candidate), ScheduledRequest) for candidate in gc.get_objects())

    late, refused = error is DeadlineExceededError, error is OverCapacityError
    with dispatching(bundle, max_queue_ms=1e-3 if refused else 60_000) as setup:

        async def scenario() -> None:
            if refused:
                setup.stage.open.clear()
                held = setup.start(numbered(1), FULL)
                await setup.stage.wait_held()
            failed = 0
            for _ in range(100):
                deadline = time.perf_counter() - 1 if late else None
                try:
                    await setup.classify_files([b"no image"], FULL, deadline=deadline)
                except error:
                    failed += 1
            # Stale deadlines are removed some dozens at a time, and a worker may hold a batch.
            assert (failed, requests() < 50) == (100, True)
            if refused:
                setup.stage.open.set()
                await held

        gc.collect()
        gc.disable()
        try:
            run_scenario(scenario)
        finally:
            gc.enable()


def test_retiring_waits_for_the_last_sample_of_the_engine(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            await setup.dispatcher.retire(Engine(bundle))
            setup.stage.open.clear()
            task = setup.start(numbered(2), FULL)
            await setup.stage.wait_held()
            retiring = asyncio.create_task(setup.dispatcher.retire(setup.engine))
            await asyncio.sleep(0.02)
            assert not retiring.done()
            setup.stage.open.set()
            await retiring
            assert len((await task).predictions) == 2
            # A request that chose its engine before is still answered.
            late = await setup.classify(numbered(2), FULL)
            assert len(late.predictions) == 2
            assert setup.dispatcher._scheduler._selector.model_queues == {}

        run_scenario(scenario)


def test_opening_an_engine_measures_its_stages(bundle: Bundle) -> None:
    dispatcher = Dispatcher(
        workers=1, max_queue_ms=1000, max_queue_bytes=1000, max_pixels=1000, metrics=Metrics()
    )
    engine = Engine(bundle)
    costs = dispatcher.open(engine)
    assert dispatcher._scheduler._selector.model_queues[engine].costs is costs
    for stage in range(1, EXITS + 1):
        seconds = [costs.seconds(stage, size) for size in range(MAX_BATCH + 1)]
        assert seconds == sorted(seconds)
        assert 1 <= costs.best_batch(stage) <= MAX_BATCH

    async def scenario() -> None:
        result = await dispatcher.classify_pixels(engine, numbered(1), RequestOptions(FULL))
        assert isinstance(result, BatchResult)

    run_scenario(scenario)
    dispatcher.close()
