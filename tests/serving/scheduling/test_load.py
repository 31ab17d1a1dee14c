"""The load that the scheduler reports of an engine."""

from __future__ import annotations

from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from tests.serving.scheduling.harness import FIRST, FULL, dispatching, numbered, run_scenario

PAUSE_S = 0.01


def test_images_and_seconds_of_workers_are_counted_by_priority(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:
        setup.stage.pause = PAUSE_S

        async def scenario() -> None:
            await setup.classify(numbered(3), FULL)
            await setup.classify(numbered(2), FIRST, priority="low")

        run_scenario(scenario)
        load = setup.dispatcher.load(setup.engine)
        assert load is not None
        assert (load.admitted, load.finished, load.wait) == (3, 3, 0.0)
        # Three stages, and the first alone.
        assert load.busy_s >= 3 * PAUSE_S
        assert PAUSE_S <= load.low_busy_s < load.busy_s


def test_a_waiting_image_is_admitted_and_not_finished(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:
        setup.stage.open.clear()

        async def scenario() -> None:
            running = setup.start(numbered(2), FIRST)
            await setup.stage.wait_held()
            load = setup.dispatcher.load(setup.engine)
            assert load is not None
            assert (load.admitted, load.finished) == (2, 0)
            assert load.wait > 0
            setup.stage.open.set()
            await running

        run_scenario(scenario)


def test_an_engine_that_is_not_open_has_no_load(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:
        assert setup.dispatcher.load(Engine(bundle)) is None
