"""Samples that left early go on to full depth after their answer, while nothing else waits."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.scheduling import shadows as module
from serving.scheduling.options import ShadowDrop, ShadowOptions, ShadowResult
from serving.scheduling.shadows import ShadowRequest
from tests.serving.scheduling.harness import (
    EARLY,
    ENSEMBLE,
    FIRST,
    Images,
    Setup,
    dispatching,
    numbered,
    run_scenario,
)
from tests.serving.stages import until

CASCADE = pytest.mark.parametrize("bundle_with_image_stages", [(1, 3)], indirect=True)


@dataclass
class Log:
    """What became of the shadows."""

    results: list[ShadowResult] = field(default_factory=list)
    dropped: list[ShadowDrop] = field(default_factory=list)

    def options(self, share: float = 1.0) -> ShadowOptions:
        return ShadowOptions(share, self.results.append, self.dropped.append)

    @property
    def ended(self) -> int:
        return len(self.results) + len(self.dropped)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def setup(bundle: Bundle) -> Iterator[Setup]:
    with dispatching(bundle, max_shadow_work=1.0) as setup:
        yield setup


def agreement(engine: Engine, images: Images) -> list[tuple[int, float, bool]]:
    """What the shadows of `images` should show, computed without a scheduler."""
    first, deepest = engine.classify(images, EARLY), engine.classify(images, ENSEMBLE)
    return [
        (one.exit, one.measured, one.index == full.index)
        for one, full in zip(first, deepest, strict=True)
        if one.exit < engine.exits
    ]


def check(setup: Setup, log: Log, images: Images) -> None:
    expected = agreement(setup.engine, images)

    async def scenario() -> None:
        found = await setup.classify(images, EARLY, shadow=log.options())
        assert [one.exit for one in found.predictions] == [  # type: ignore[union-attr]
            one.exit for one in setup.engine.classify(images, EARLY)
        ]
        await until(lambda: log.ended == len(expected))

    run_scenario(scenario)
    assert log.dropped == []
    found = sorted(log.results)
    assert [result.measured for result in found] == pytest.approx(
        [measured for _, measured, _ in sorted(expected)], abs=1e-5
    )
    assert [(result.exit_, result.agrees) for result in found] == [
        (exit_, agrees) for exit_, _, agrees in sorted(expected)
    ]


def test_every_image_that_left_early_is_compared_with_the_ensemble_of_all_exits(
    setup: Setup, log: Log, images: Images
) -> None:
    check(setup, log, images)
    assert {result.exit_ for result in log.results} == {1, 2}


@CASCADE
def test_a_stage_that_takes_the_image_gets_it(
    bundle_with_image_stages: Bundle, log: Log, images: Images
) -> None:
    with dispatching(bundle_with_image_stages, max_shadow_work=1.0) as setup:
        check(setup, log, images)
    assert {result.agrees for result in log.results} == {True, False}


def test_the_share_is_chosen_at_random(
    setup: Setup, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = iter([0.1, 0.3, 0.24, 0.9])
    monkeypatch.setattr(module, "random", lambda: next(draws))

    async def scenario() -> None:
        await setup.classify(numbered(4), FIRST, shadow=log.options(share=0.25))
        await until(lambda: log.ended == 2)

    run_scenario(scenario)


def test_the_answer_does_not_wait_for_the_shadow(setup: Setup, log: Log) -> None:
    async def scenario() -> None:
        setup.stage.hold_at = 2
        setup.stage.open.clear()
        await setup.classify(numbered(1), FIRST, shadow=log.options())
        await setup.stage.wait_held()
        assert log.ended == 0
        setup.stage.open.set()
        await until(lambda: log.ended == 1)

    run_scenario(scenario)


def test_shadows_wait_for_every_other_image_even_of_low_priority(setup: Setup, log: Log) -> None:
    async def scenario() -> None:
        await setup.classify(numbered(1), FIRST, shadow=log.options())
        setup.stage.open.clear()
        first = setup.start(numbered(1), FIRST)
        await setup.stage.wait_held()
        await until(lambda: len(setup.dispatcher._scheduler._shadows._waiting) == 1)
        others = [setup.start(numbered(1), FIRST, priority="low") for _ in range(3)]
        await until(lambda: setup.dispatcher.pending == 4)
        setup.stage.open.set()
        await asyncio.gather(first, *others)
        await until(lambda: log.ended == 1)

    run_scenario(scenario)
    assert [stage for stage, _ in setup.stage.batches][-2:] == [2, 3]


def test_shadows_are_dropped_while_no_worker_is_idle(
    setup: Setup, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_S", 0.0)

    async def scenario() -> None:
        await setup.classify(numbered(2), FIRST, shadow=log.options())
        setup.stage.open.clear()
        busy = setup.start(numbered(1), FIRST)
        await setup.stage.wait_held()
        await until(lambda: len(setup.dispatcher._scheduler._shadows._waiting) == 2)
        setup.stage.open.set()
        await busy
        await until(lambda: log.ended == 2)

    run_scenario(scenario)
    assert log.dropped == ["busy", "busy"]


def test_the_work_of_shadows_is_capped(bundle: Bundle, log: Log) -> None:
    with dispatching(bundle, max_shadow_work=0.01) as setup:
        setup.dispatcher._scheduler._shadows._saved_s = 0.0

        async def scenario() -> None:
            for _ in range(20):
                await setup.classify(numbered(1), FIRST, shadow=log.options())
            await until(lambda: log.ended == 20)
            load = setup.dispatcher.load(setup.engine)
            assert load is not None
            # It ends with the batch that exceeds it.
            assert load.low_busy_s < 0.05
            assert log.dropped.count("cap") >= 15

        run_scenario(scenario)


def test_few_shadows_wait(setup: Setup, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def scenario() -> None:
        await setup.classify(numbered(8), FIRST, shadow=log.options())
        await until(lambda: log.ended == 8)

    run_scenario(scenario)
    assert log.dropped == ["full"] * 5


def test_few_bytes_wait(setup: Setup, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    # The features of two samples after the first stage: float32 [4, 4, 4].
    monkeypatch.setattr(module, "MAX_BYTES", 2 * 4 * 64)

    async def scenario() -> None:
        await setup.classify(numbered(8), FIRST, shadow=log.options())
        await until(lambda: log.ended == 8)

    run_scenario(scenario)
    assert log.dropped == ["full"] * 6


def test_a_stage_that_fails_drops_its_shadows(setup: Setup, log: Log) -> None:
    run_stage = setup.engine.run_stage

    def fail(stage: int, inputs: object) -> object:
        if stage == 3:
            raise RuntimeError("broken")
        return run_stage(stage, inputs)

    setup.engine.run_stage = fail  # type: ignore[method-assign,assignment]

    async def scenario() -> None:
        await setup.classify(numbered(2), FIRST, shadow=log.options())
        await until(lambda: log.ended == 2)
        assert len((await setup.classify(numbered(1), FIRST)).predictions) == 1

    run_scenario(scenario)
    assert log.dropped == ["failed", "failed"]


def test_shadows_end_with_their_model(setup: Setup, log: Log) -> None:
    async def scenario() -> None:
        await setup.classify(numbered(2), FIRST, shadow=log.options())
        await setup.dispatcher.retire(setup.engine)
        await until(lambda: log.ended == 2)

    run_scenario(scenario)
    assert log.dropped == ["ended", "ended"]


def test_shadows_end_with_the_server(bundle: Bundle, log: Log) -> None:
    with dispatching(bundle, max_shadow_work=1.0) as setup:

        async def scenario() -> None:
            setup.stage.hold_at = 2
            setup.stage.open.clear()
            await setup.classify(numbered(1), FIRST, shadow=log.options())
            await setup.stage.wait_held()
            closing = asyncio.create_task(asyncio.to_thread(setup.dispatcher.close))
            await until(lambda: setup.dispatcher._scheduler._closing)
            setup.stage.open.set()
            await closing

        run_scenario(scenario)
    assert log.dropped == ["ended"]


@pytest.mark.parametrize("policy", [EARLY.override(threshold=2), ENSEMBLE])
def test_images_of_the_last_exit_have_no_shadow(setup: Setup, log: Log, policy: object) -> None:
    async def scenario() -> None:
        await setup.classify(numbered(2), policy, shadow=log.options())  # type: ignore[arg-type]
        await asyncio.sleep(0.05)

    run_scenario(scenario)
    assert log.ended == 0


def test_nothing_of_a_shadow_is_kept(setup: Setup, log: Log, images: Images) -> None:
    def left() -> int:
        return sum(type(one) is ShadowRequest for one in gc.get_objects())

    async def scenario() -> None:
        await setup.classify(images, FIRST, shadow=log.options())
        assert left() == len(images)
        await until(lambda: log.ended == len(images))
        # A worker that sleeps holds nothing of its last batch.
        await until(lambda: left() == 0)

    gc.collect()
    gc.disable()
    try:
        run_scenario(scenario)
    finally:
        gc.enable()


def test_a_shadow_keeps_its_own_features_alone(setup: Setup, log: Log) -> None:
    async def scenario() -> None:
        setup.stage.hold_at = 2
        setup.stage.open.clear()
        await setup.classify(numbered(8), FIRST, shadow=log.options())
        await setup.stage.wait_held()
        queue = setup.dispatcher._scheduler._shadows
        blocks = [shadow.block for shadow in queue._waiting]
        assert all(block is not None and block.rows == 1 for block in blocks)
        setup.stage.open.set()
        await until(lambda: log.ended == 8)

    run_scenario(scenario)
