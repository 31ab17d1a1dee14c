"""Every image of every request gets its own answer, whatever else runs."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.bundle.errors import PolicyError
from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from serving.errors import InvalidImageError, InvalidOutputError
from serving.scheduling.costs import MAX_BATCH
from serving.scheduling.options import BatchResult, ExitReached, ImageFailed
from serving.scheduling.queues import SampleEvent
from tests.serving.scheduling.harness import (
    EARLY,
    FIRST,
    FULL,
    POLICIES,
    Images,
    dispatching,
    even_costs,
    numbered,
    run_scenario,
    same_prediction,
)
from tests.serving.tiny_bundle import EXITS


@pytest.mark.parametrize("bundle_with_image_stages", [(1,), (1, 3)], indirect=True)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_image_of_each_request_gets_the_answer_of_the_engine_once(
    bundle_with_image_stages: Bundle, images: Images, data: st.DataObject
) -> None:
    requests = data.draw(
        st.lists(
            st.tuples(
                st.lists(st.integers(0, 39), min_size=1, max_size=6),
                st.sampled_from(POLICIES),
                st.sampled_from(["normal", "low"]),
                st.sampled_from(["wait", "wait", "wait", "cancel", "stream", "run_all_exits"]),
            ),
            min_size=1,
            max_size=12,
        )
    )
    workers = data.draw(st.integers(1, 3))
    best = data.draw(st.sampled_from([1, 3, 8, MAX_BATCH]))
    with dispatching(
        bundle_with_image_stages, workers=workers, costs=even_costs(0.001, best)
    ) as setup:

        async def request(rows: list[int], policy: Policy, priority: Any, kind: str) -> None:
            events: list[ExitReached] = []
            streams, all_exits = kind in ("stream", "run_all_exits"), kind == "run_all_exits"
            call = setup.classify(
                images[rows],
                policy,
                priority=priority,
                on_exit=events.append if streams else None,
                run_all_exits=all_exits,
            )
            if kind == "cancel":
                task = asyncio.create_task(call)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return
            result = await call
            expected = setup.engine.classify(images[rows], policy)
            assert len(result.predictions) == len(rows)
            for found, wanted in zip(result.predictions, expected, strict=True):
                assert same_prediction(found, wanted, policy)
            for image, found in enumerate(result.predictions):
                own = [event for event in events if event.image == image]
                last = EXITS if all_exits else found.exit
                if streams:
                    assert [event.prediction.exit for event in own] == list(range(1, last + 1))
                    assert [event.prediction for event in own if event.left] == [found]

        async def scenario() -> None:
            await asyncio.gather(*(request(*drawn) for drawn in requests))

        run_scenario(scenario)
        assert setup.dispatcher.pending == 0
        batches = setup.stage.batches
        sizes = [len(found) if stage == 1 else found[0] for stage, found in batches]
        # The reference runs through the same stage, in batches of at most 6.
        assert max(sizes, default=0) <= max(best, 6)


def test_exits_are_reported_in_order_however_slowly_a_worker_reports(bundle: Bundle) -> None:
    with dispatching(bundle, workers=2, costs=even_costs(0.02, best=8)) as setup:
        setup.stage.pause = 0.002
        scheduler = setup.dispatcher._scheduler
        report, pauses = scheduler._report, itertools.cycle([0.0, 0.02, 0.0])

        def report_slowly(events: list[SampleEvent]) -> None:
            time.sleep(next(pauses))
            report(events)

        scheduler._report = report_slowly

        async def request(policy: Policy, run_all_exits: bool) -> None:
            events: list[ExitReached] = []
            result = await setup.classify(
                numbered(2), policy, on_exit=events.append, run_all_exits=run_all_exits
            )
            for image, found in enumerate(result.predictions):
                exits = [event.prediction.exit for event in events if event.image == image]
                assert exits == list(range(1, (EXITS if run_all_exits else found.exit) + 1))

        async def scenario() -> None:
            kinds = list(itertools.product((FIRST, FULL, EARLY), (False, True)))
            for _ in range(10):
                await asyncio.gather(*(request(*kind) for kind in kinds))

        run_scenario(scenario)


def test_the_time_of_an_exit_is_that_of_its_own_stages_however_late_it_is_read(
    bundle: Bundle,
) -> None:
    with dispatching(bundle) as setup:
        setup.stage.pause = 0.01
        events: list[ExitReached] = []

        def read_slowly(event: ExitReached) -> None:
            # Later stages run meanwhile.
            time.sleep(0.04)
            events.append(event)

        async def scenario() -> None:
            result = await setup.classify(
                numbered(1), FIRST, on_exit=read_slowly, run_all_exits=True
            )
            assert result.compute == events[0].compute

        run_scenario(scenario)
        spent = [0.0, *(event.compute for event in events)]
        assert len(events) == EXITS
        assert all(after - before >= 0.01 for before, after in itertools.pairwise(spent))


def test_no_request_is_lost_when_threads_switch_all_the_time(bundle: Bundle) -> None:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with dispatching(bundle, workers=3, costs=even_costs(0.001)) as setup:

            async def scenario() -> None:
                for _ in range(50):
                    calls = (setup.classify(numbered(8), EARLY) for _ in range(8))
                    for result in await asyncio.gather(*calls):
                        assert len(result.predictions) == 8

            run_scenario(scenario)
    finally:
        sys.setswitchinterval(usual)


def test_an_error_in_a_stage_fails_the_requests_of_that_batch_only(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:
        usual = setup.engine.judge

        def broken(policies: Any, *others: Any) -> Any:
            if FULL in policies:
                raise RuntimeError("never mind")
            return usual(policies, *others)

        setup.engine.judge = broken  # type: ignore[method-assign]

        async def scenario() -> None:
            with pytest.raises(RuntimeError, match="never mind"):
                await setup.classify(numbered(2), FULL)
            assert len((await setup.classify(numbered(2), FIRST)).predictions) == 2

        run_scenario(scenario)
        assert setup.dispatcher.pending == 0


def test_a_bad_file_has_an_error_and_the_other_images_their_answers(
    bundle: Bundle, pngs: list[bytes]
) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            failed: list[ImageFailed] = []
            good = setup.start_files(pngs[:2], FULL)
            mixed = setup.start_files([pngs[0], b"text", pngs[1]], FULL, on_failed=failed.append)
            first, error, last = (await mixed).predictions
            assert isinstance(error, InvalidImageError)
            assert [(event.image, event.error) for event in failed] == [(1, error)]
            for found, wanted in zip((first, last), (await good).predictions, strict=True):
                assert same_prediction(found, wanted, FULL)

        run_scenario(scenario)
        assert setup.dispatcher.pending == 0


def test_a_lone_bad_file_fails_its_request(bundle: Bundle, pngs: list[bytes]) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            answers: list[BatchResult] = []
            good = setup.start_files(pngs[:3], FULL)
            with pytest.raises(InvalidImageError, match="JPEG"):
                await setup.classify_files([b"text"], FULL, on_answer=answers.append)
            assert answers == []
            assert len((await good).predictions) == 3

        run_scenario(scenario)
        assert setup.dispatcher.pending == 0


def test_pixels_and_policies_that_do_not_fit_are_refused(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            with pytest.raises(ValueError, match="uint8"):
                await setup.classify(np.zeros((1, 4, 4, 3), np.uint8), FULL)
            with pytest.raises(PolicyError, match="2 exits"):
                await setup.classify(numbered(1), Policy(thresholds=(0.5,), max_exit=2))

        run_scenario(scenario)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_without_logits_fails_alone_and_is_counted(
    bundle: Bundle, images: Images, value: float
) -> None:
    with dispatching(bundle, workers=1, costs=even_costs(0.001, MAX_BATCH)) as setup:
        compute = setup.engine.compute

        def broken(stage: int, inputs: Any) -> Any:
            output = compute(stage, inputs)
            if stage == 1:
                # Images whose first value is 1: the one in the middle.
                output.logits[inputs[:, 0, 0, 0] == 1] = value
            return output

        setup.engine.compute = broken  # type: ignore[method-assign]

        results: list[Any] = []

        async def scenario() -> None:
            numbers = numbered(3)
            results[:] = await asyncio.gather(
                *(setup.classify(numbers[i : i + 1], FULL) for i in range(3)),
                return_exceptions=True,
            )

        run_scenario(scenario)
        first, broken_one, last = results
        assert isinstance(broken_one, InvalidOutputError)
        assert (broken_one.status, broken_one.code) == (500, "invalid_output")
        for result in (first, last):
            assert np.isfinite(result.predictions[0].confidence)
        text = setup.metrics.render().decode()
        assert 'offramp_invalid_outputs_total{model="tiny",stage="1"} 1.0' in text
