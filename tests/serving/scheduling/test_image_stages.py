"""Samples keep their image for as long as a later stage may take it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.scheduling.queues import Sample
from tests.serving.conftest import encode
from tests.serving.scheduling.harness import (
    EARLY,
    ENSEMBLE,
    FIRST,
    Images,
    Setup,
    dispatching,
    even_costs,
    numbered,
    run_scenario,
)

CASCADE = pytest.mark.parametrize("bundle_with_image_stages", [(1, 3)], indirect=True)


def record_inputs(engine: Engine) -> dict[int, list[Any]]:
    """The inputs of every batch that `engine` runs from now on, by stage."""
    run, inputs = engine.run_stage, {1: [], 2: [], 3: []}

    def run_stage(stage: int, given: Any) -> Any:
        inputs[stage].append(given)
        return run(stage, given)

    engine.run_stage = run_stage  # type: ignore[method-assign]
    return inputs


def waiting(setup: Setup, stage: int) -> list[Sample]:
    """The samples that wait for `stage`."""
    (queues,) = setup.dispatcher._scheduler._selector.model_queues.values()
    return list(queues.queue(stage, False).waiting)


@CASCADE
@pytest.mark.parametrize("form", ["files", "pixels"])
def test_the_image_stage_gets_the_images_of_the_samples_that_stay(
    bundle_with_image_stages: Bundle, form: str
) -> None:
    images = numbered(6)
    files = [encode(Image.fromarray(pixels)) for pixels in images]
    with dispatching(bundle_with_image_stages) as setup:
        inputs = record_inputs(setup.engine)

        async def scenario() -> None:
            def start(rows: list[int], policy: Any) -> asyncio.Task[Any]:
                if form == "pixels":
                    return setup.start(images[rows], policy)
                return setup.start_files([files[row] for row in rows], policy)

            setup.stage.open.clear()
            blocker = setup.start(numbered(1), FIRST)
            await setup.stage.wait_held()
            requests = [start([1], ENSEMBLE), start([2, 3], FIRST), start([4, 5], ENSEMBLE)]
            await asyncio.sleep(0)
            setup.stage.open.set()
            await asyncio.gather(blocker, *requests)

        run_scenario(scenario)
        reached = np.concatenate(inputs[3])
        assert reached.dtype == np.uint8
        np.testing.assert_array_equal(reached, images[[1, 4, 5]])


@CASCADE
def test_answers_of_a_mixed_load_are_those_of_the_engine(
    bundle_with_image_stages: Bundle, images: Images, pngs: list[bytes]
) -> None:
    with dispatching(bundle_with_image_stages, workers=3, costs=even_costs(1e-4, 8)) as setup:
        expected = setup.engine.classify(images, EARLY)
        assert {answer.exit for answer in expected} == {1, 2, 3}

        async def scenario() -> None:
            tasks = [setup.start_files(pngs[i : i + 5], EARLY) for i in range(0, len(pngs), 5)]
            found = [answer for task in tasks for answer in (await task).predictions]
            for answer, wanted in zip(found, expected, strict=True):
                assert (answer.exit, answer.index) == (wanted.exit, wanted.index)
                np.testing.assert_allclose(answer.probabilities, wanted.probabilities, atol=1e-5)

        run_scenario(scenario)


@CASCADE
def test_a_sample_has_its_image_until_the_stage_that_takes_it(
    bundle_with_image_stages: Bundle,
) -> None:
    with dispatching(bundle_with_image_stages, costs=even_costs(1e-4, 4)) as setup:
        setup.stage.hold_at = 3
        setup.stage.open.clear()

        async def scenario() -> None:
            first = setup.start(numbered(1), ENSEMBLE)
            await setup.stage.wait_held()
            task = setup.start(numbered(3)[1:], ENSEMBLE)
            await asyncio.sleep(0)
            samples = waiting(setup, 1)
            kept = [sample.image for sample in samples if sample.image is not None]
            assert [image[0, 0, 0] for image in kept] == [1, 2]
            setup.stage.open.set()
            await asyncio.gather(first, task)
            assert [(sample.image, sample.block) for sample in samples] == [(None, None)] * 2

        run_scenario(scenario)


@CASCADE
def test_a_cancelled_request_leaves_no_image(bundle_with_image_stages: Bundle) -> None:
    with dispatching(bundle_with_image_stages) as setup:
        setup.stage.open.clear()

        async def scenario() -> None:
            running = setup.start(numbered(1), ENSEMBLE)
            await setup.stage.wait_held()
            cancelled = setup.start(numbered(3), ENSEMBLE)
            await asyncio.sleep(0)
            samples = waiting(setup, 1)
            assert len(samples) == 3
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            assert [sample.image for sample in samples] == [None] * 3
            setup.stage.open.set()
            await running

        run_scenario(scenario)


@pytest.mark.parametrize(
    ("bundle_with_image_stages", "stage"),
    [((1,), 2), ((1, 2), 3)],
    indirect=["bundle_with_image_stages"],
)
def test_no_image_is_kept_once_no_later_stage_takes_it(
    bundle_with_image_stages: Bundle, stage: int
) -> None:
    with dispatching(bundle_with_image_stages, costs=even_costs(1e-4, best=1)) as setup:

        async def scenario() -> None:
            await setup.classify(numbered(2), ENSEMBLE)

        enqueue = setup.dispatcher._scheduler._tracker._enqueue
        kept: list[bool] = []

        def record(sample: Sample, now: float) -> None:
            if sample.stage == stage:
                kept.append(sample.image is not None)
            enqueue(sample, now)

        setup.dispatcher._scheduler._tracker._enqueue = record  # type: ignore[method-assign]
        run_scenario(scenario)
        assert kept == [False, False]
