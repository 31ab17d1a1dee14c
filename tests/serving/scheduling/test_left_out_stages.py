"""Stages whose exits an answer does not need are left out, where a later stage takes the image."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from serving.inference.engine import Engine, Prediction
from serving.scheduling.execution import Batch, run
from serving.scheduling.options import ShadowOptions
from serving.scheduling.queues import Block, ModelQueues, Sample, ScheduledRequest
from serving.telemetry.metrics import Metrics
from tests.serving.conftest import encode
from tests.serving.scheduling.harness import (
    EARLY,
    ENSEMBLE,
    POLICIES,
    Images,
    dispatching,
    even_costs,
    numbered,
    run_scenario,
    same_prediction,
)

CASCADE = pytest.mark.parametrize("bundle_with_image_stages", [(1, 2, 3)], indirect=True)
LAST = EARLY.override(mode="exit")
ALONE = pytest.mark.parametrize(
    ("bundle_with_image_stages", "policy", "stages"),
    [
        ((1, 2, 3), LAST, [3]),
        ((1, 2, 3), EARLY.override(mode="exit", max_exit=2), [2]),
        ((1, 2, 3), EARLY.override(threshold=2), [3]),
        ((1, 3), LAST, [3]),
        ((1, 3), EARLY.override(mode="exit", max_exit=2), [1, 2]),
        ((1, 2), LAST, [2, 3]),
        ((1,), LAST, [1, 2, 3]),
        ((1, 2, 3), ENSEMBLE, [1, 2, 3]),
        (
            (1, 2, 3),
            EARLY.override(threshold=2).model_copy(update={"combine": "running"}),
            [1, 2, 3],
        ),
    ],
    indirect=["bundle_with_image_stages"],
)


@ALONE
@pytest.mark.parametrize("form", ["files", "pixels"])
def test_stages_that_an_answer_does_not_need_are_left_out(
    bundle_with_image_stages: Bundle, policy: Policy, stages: list[int], form: str
) -> None:
    images = numbered(4)
    with dispatching(bundle_with_image_stages) as setup:
        found: list[Any] = []

        async def scenario() -> None:
            if form == "files":
                files = [encode(Image.fromarray(pixels)) for pixels in images]
                found.extend((await setup.classify_files(files, policy)).predictions)
            else:
                found.extend((await setup.classify(images, policy)).predictions)

        run_scenario(scenario)
        assert sorted({stage for stage, _ in setup.stage.batches}) == stages
        expected = simulate(
            policy,
            StageRunner(bundle_with_image_stages.stages).logits(images),
            bundle_with_image_stages.manifest.scaling,
        )
        assert [answer.index for answer in found] == expected.predictions.tolist()
        np.testing.assert_allclose(
            [answer.confidence for answer in found], expected.confidence, atol=1e-5
        )
        assert {answer.first_stage for answer in found} == {stages[0]}


@CASCADE
@pytest.mark.parametrize("wanted", ["deadline", "on_exit", "run_all_exits", "shadow"])
def test_no_stage_is_left_out_where_other_exits_are_of_use(
    bundle_with_image_stages: Bundle, wanted: str
) -> None:
    options: dict[str, Any] = {
        "deadline": time.perf_counter() + 60,
        "on_exit": lambda reached: None,
        "run_all_exits": True,
        "shadow": ShadowOptions(1.0, lambda result: None, lambda reason: None),
    }
    with dispatching(bundle_with_image_stages) as setup:

        async def scenario() -> None:
            await setup.classify(numbered(2), LAST, **{wanted: options[wanted]})

        run_scenario(scenario)
        assert sorted({stage for stage, _ in setup.stage.batches}) == [1, 2, 3]


@CASCADE
def test_answers_of_a_mixed_load_are_those_of_the_engine(
    bundle_with_image_stages: Bundle, images: Images, pngs: list[bytes]
) -> None:
    policies = [*POLICIES, LAST]
    costs = even_costs(1e-4, 64)
    with dispatching(bundle_with_image_stages, workers=3, costs=costs) as setup:

        async def scenario() -> None:
            tasks = [
                setup.start(images[k : k + 3], policies[k % len(policies)])
                if k % 2
                else setup.start_files(pngs[k : k + 3], policies[k % len(policies)])
                for k in range(24)
            ]
            for k, task in enumerate(tasks):
                policy = policies[k % len(policies)]
                expected = setup.engine.classify(images[k : k + 3], policy)
                for answer, wanted in zip((await task).predictions, expected, strict=True):
                    assert isinstance(answer, Prediction)
                    assert same_prediction(answer, wanted, policy)

        run_scenario(scenario)


@CASCADE
def test_samples_that_begin_at_a_stage_share_its_batch_with_those_that_reach_it(
    bundle_with_image_stages: Bundle, images: Images
) -> None:
    engine = Engine(bundle_with_image_stages)
    logits = list(StageRunner(bundle_with_image_stages.stages).logits(images[:2]))
    last, ensemble = (
        ScheduledRequest(engine, LAST, first_stage=3),
        ScheduledRequest(engine, ENSEMBLE),
    )
    begins = Block(3, images[2:5], [])
    reached = Block(2, None, logits[:2])
    samples = [
        Sample(last, 0, 0, image=images[3], block=begins, row=1, stage=3),
        Sample(ensemble, 0, 0, image=images[0], block=reached, row=0, stage=3),
        Sample(ensemble, 1, 0, image=images[1], block=reached, row=1, stage=3),
        Sample(last, 1, 0, image=images[4], block=begins, row=2, stage=3),
    ]
    queues = ModelQueues(engine, even_costs(1e-4, 8))
    outcome = run(Batch(queues, 3, samples, 0.0), 10_000, Metrics())
    assert not outcome.errors
    for found, image, policy in zip(
        outcome.predictions, images[[3, 0, 1, 4]], [LAST, ENSEMBLE, ENSEMBLE, LAST], strict=True
    ):
        assert found is not None
        (alone,) = engine.classify(image[None], policy)
        assert same_prediction(found, alone, policy)
        assert found.first_stage == alone.first_stage


@CASCADE
def test_the_work_ahead_of_a_sample_leaves_out_what_it_does_not_run(
    bundle_with_image_stages: Bundle,
) -> None:
    with dispatching(bundle_with_image_stages, costs=even_costs(0.25, best=1)) as setup:
        setup.stage.open.clear()
        scheduler = setup.dispatcher._scheduler

        async def scenario() -> None:
            task = setup.start(numbered(1), LAST)
            await setup.stage.wait_held()
            ahead = scheduler._waits[False]
            setup.stage.open.set()
            await task
            assert ahead == pytest.approx(0.25)

        run_scenario(scenario)


@CASCADE
def test_an_engine_that_keeps_logits_runs_all_stages(bundle_with_image_stages: Bundle) -> None:
    engine = Engine(bundle_with_image_stages, keep_logits=True)
    (answer,) = engine.classify(numbered(1), LAST)
    assert answer.first_stage == 1
    assert answer.logits is not None
    assert len(answer.logits) == 3
