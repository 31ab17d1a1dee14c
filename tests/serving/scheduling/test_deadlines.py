"""Deadlines: answered in time, from the deepest exit that fits."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.bundle.reader import Bundle
from serving.errors import DeadlineExceededError
from serving.inference.engine import Engine
from serving.scheduling.costs import CostTable
from serving.scheduling.queues import ModelQueues, Sample, ScheduledRequest
from serving.scheduling.selection import BatchSelector
from tests.serving.scheduling.harness import (
    EARLY,
    FIRST,
    FULL,
    Images,
    Punctuality,
    dispatching,
    even_costs,
    numbered,
    run_scenario,
    same_prediction,
)


def test_a_deadline_answers_from_the_deepest_exit_that_fits(bundle: Bundle) -> None:
    costs = CostTable([{1: 0.001}, {1: 0.001}, {1: 1000.0}])
    with dispatching(bundle, costs=costs) as setup:

        async def scenario() -> None:
            deadline = time.perf_counter() + 100
            (found,) = (await setup.classify(numbered(1), FULL, deadline=deadline)).predictions
            assert time.perf_counter() < deadline
            assert (found.exit, found.reason) == (2, "deadline")
            exit_2 = FULL.override(mode="exit", max_exit=2)
            (expected,) = setup.engine.classify(numbered(1), exit_2)
            assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5)

        run_scenario(scenario)
        assert len(setup.stage.ran(3)) == 0
        assert 'offramp_expired_total{model="tiny"} 1.0' in setup.metrics.render().decode()


def test_an_unsure_answer_at_a_deadline_is_unsure(bundle: Bundle) -> None:
    costs = CostTable([{1: 0.001}, {1: 0.001}, {1: 1000.0}])
    with dispatching(bundle, costs=costs) as setup:

        async def scenario() -> None:
            policy, deadline = FULL.override(reject_below=1.0), time.perf_counter() + 100
            (found,) = (await setup.classify(numbered(1), policy, deadline=deadline)).predictions
            assert (found.exit, found.reason) == (2, "unsure")

        run_scenario(scenario)


@pytest.mark.serial
def test_an_answer_is_in_time_though_a_stage_is_late(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.0001)) as setup:

        async def scenario() -> None:
            setup.stage.hold_at = 2
            setup.stage.open.clear()
            deadline = time.perf_counter() + 0.2
            async with Punctuality() as punctuality:
                result = await setup.classify(numbered(1), FULL, deadline=deadline)
                punctuality.check(deadline)
            assert (result.predictions[0].exit, result.predictions[0].reason) == (1, "deadline")
            setup.stage.open.set()

        run_scenario(scenario)
        assert len(setup.stage.ran(3)) == 0


@pytest.mark.serial
def test_a_deadline_before_the_first_exit_is_an_error_in_time(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            first = setup.start(numbered(1), FIRST)
            await setup.stage.wait_held()
            deadline = time.perf_counter() + 0.05
            async with Punctuality() as punctuality:
                with pytest.raises(DeadlineExceededError):
                    await setup.classify(numbered(3)[1:], FIRST, deadline=deadline)
                punctuality.check(deadline)
            setup.stage.open.set()
            await first

        run_scenario(scenario)
    # The images expired before they cost anything.
    assert setup.stage.batches == [(1, [0])]


@pytest.mark.serial
def test_a_tight_deadline_runs_before_deeper_work(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.02)) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            setup.stage.hold_at = 1
            deep = setup.start(numbered(1), FULL)
            await setup.stage.wait_held()
            relaxed = setup.start(numbered(3)[1:2], FIRST)
            await asyncio.sleep(0)
            urgent = setup.start(numbered(3)[2:], FIRST, deadline=time.perf_counter() + 0.03)
            await asyncio.sleep(0)
            setup.stage.open.set()
            assert (await urgent).predictions[0].reason == "confident"
            await asyncio.gather(deep, relaxed)

        run_scenario(scenario)
    # The first image waits for stage 2 meanwhile.
    assert [numbers for _, numbers in setup.stage.batches][:2] == [[0], [2]]
    assert setup.stage.batches[-1] == (1, [1])


def test_a_tight_deadline_does_not_wait_for_photographs_that_are_decoded_together(
    bundle: Bundle,
) -> None:
    """Decoding one of them fits before the deadline, and decoding eight together does not."""
    selector, now = BatchSelector(workers=1), time.perf_counter()
    queues = ModelQueues(Engine(bundle), even_costs(1e-5, best=8))
    selector.model_queues[queues.engine] = queues
    request = ScheduledRequest(queues.engine, FULL)
    for number in range(8):
        queues.queue(0, low_priority=False).add(Sample(request, number, size=130_000))
    usual, _ = selector.choose(now) or (None, None)
    assert usual is not None
    assert usual.stage == 0
    urgent = Sample(ScheduledRequest(queues.engine, FULL, deadline=now + 0.015), 0, size=0, stage=0)
    queues.queue(0, low_priority=True).add(urgent)
    selector.add_deadline(urgent, now + 0.015, in_flight=9)
    assert selector.choose(now) == (urgent.queue, urgent)


def test_a_distant_deadline_changes_nothing(bundle: Bundle, images: Images) -> None:
    with dispatching(bundle, workers=2) as setup:

        async def scenario() -> None:
            deadline = time.perf_counter() + 1000
            result = await setup.classify(images, EARLY, deadline=deadline)
            expected = setup.engine.classify(images, EARLY)
            for found, wanted in zip(result.predictions, expected, strict=True):
                assert same_prediction(found, wanted, EARLY)

        run_scenario(scenario)


@pytest.mark.serial
@settings(max_examples=25, deadline=None)
@given(
    budgets=st.lists(st.floats(0.001, 0.06), min_size=1, max_size=8),
    pause=st.sampled_from([0.001, 0.005, 0.02]),
    estimate=st.sampled_from([0.0001, 0.005, 0.02]),
)
def test_no_answer_is_late_whatever_the_costs_and_estimates(
    bundle: Bundle, budgets: list[float], pause: float, estimate: float
) -> None:
    with dispatching(bundle, workers=2, costs=even_costs(estimate, best=4)) as setup:
        setup.stage.pause = pause

        async def request(budget: float, punctuality: Punctuality) -> None:
            deadline = time.perf_counter() + budget
            try:
                result = await setup.classify(numbered(2), FULL, deadline=deadline)
            except DeadlineExceededError:
                pass
            else:
                assert len(result.predictions) == 2
            punctuality.check(deadline)

        async def scenario() -> None:
            async with Punctuality() as punctuality:
                await asyncio.gather(*(request(budget, punctuality) for budget in budgets))

        run_scenario(scenario)
        assert setup.dispatcher.pending == 0
