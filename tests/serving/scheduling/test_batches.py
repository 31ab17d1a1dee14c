"""Which samples run together, and in which order."""

from __future__ import annotations

import asyncio
import io

from PIL import Image

from exports.bundle.reader import Bundle
from tests.serving.scheduling.harness import (
    FIRST,
    FULL,
    dispatching,
    even_costs,
    numbered,
    run_scenario,
)
from tests.serving.tiny_bundle import EXITS


def test_samples_of_different_requests_run_as_one_batch(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            first = setup.start(numbered(1), FULL)
            await setup.stage.wait_held()
            others = [setup.start(numbered(10)[i : i + 1], FULL) for i in range(1, 6)]
            await asyncio.sleep(0)
            setup.stage.open.set()
            await asyncio.gather(first, *others)

        run_scenario(scenario)
        assert setup.stage.ran(1) == [[0], [1, 2, 3, 4, 5]]
        assert (
            'offramp_stage_batch_size_sum{model="tiny",stage="1"} 6.0'
            in setup.metrics.render().decode()
        )


def test_photographs_that_wait_together_enter_stage_1_as_batches(bundle: Bundle) -> None:
    photographs = [_photograph()] * 9
    with dispatching(bundle, costs=even_costs(1e-5, best=8)) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            first = setup.start_files(photographs[:1], FIRST)
            await setup.stage.wait_held()
            others = [setup.start_files([file], FIRST) for file in photographs[1:]]
            await asyncio.sleep(0)
            setup.stage.open.set()
            await asyncio.gather(first, *others)

        run_scenario(scenario)
        batches = [len(numbers) for numbers in setup.stage.ran(1)]
        # A stall while the first one is decoded makes the others look costlier.
        assert sum(batches) == 9
        assert len(batches) <= 3


def test_samples_of_different_batches_meet_at_the_next_stage(bundle: Bundle) -> None:
    with dispatching(bundle, workers=2, costs=even_costs(1e-5, best=8)) as setup:

        async def scenario() -> None:
            setup.stage.hold_at = 2
            setup.stage.open.clear()
            tasks = []
            for _ in range(2):
                tasks.append(setup.start(numbered(1), FULL))
                await setup.stage.wait_held()
            setup.stage.hold_at = EXITS + 1
            tasks.append(setup.start(numbered(3), FULL))
            await asyncio.sleep(0)
            setup.stage.open.set()
            await asyncio.gather(*tasks)

        run_scenario(scenario)
        assert sum(size for (size,) in setup.stage.ran(EXITS)) == 5


def test_requests_run_in_order_of_arrival(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.001, best=2)) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            images = numbered(20)
            tasks = [setup.start(images[:1], FIRST)]
            await setup.stage.wait_held()
            tasks += [setup.start(images[i : i + 1], FIRST) for i in range(1, 20)]
            await asyncio.sleep(0)
            setup.stage.open.set()
            await asyncio.gather(*tasks)

        run_scenario(scenario)
        assert [number for batch in setup.stage.ran(1) for number in batch] == list(range(20))


def test_an_answer_does_not_wait_for_its_batch_to_go_deeper(bundle: Bundle) -> None:
    with dispatching(bundle) as setup:

        async def scenario() -> None:
            setup.stage.hold_at = 2
            setup.stage.open.clear()
            deep = setup.start(numbered(1), FULL)
            await setup.stage.wait_held()
            setup.stage.hold_at = EXITS + 1
            first, full = (setup.start(numbered(1), policy) for policy in (FIRST, FULL))
            await asyncio.sleep(0)
            setup.stage.hold_at = 3
            setup.stage.open.set()
            await first
            await asyncio.gather(deep, full)

        run_scenario(scenario)


def test_an_idle_server_starts_at_once(bundle: Bundle) -> None:
    with dispatching(bundle, workers=2) as setup:

        async def scenario() -> None:
            waits = []
            for _ in range(50):
                await asyncio.sleep(0.002)
                waits.append((await setup.classify(numbered(1), FIRST)).queue)
            # There is no tick and no window to collect a batch in: only waking a thread takes time.
            assert sorted(waits)[len(waits) // 2] < 0.001

        run_scenario(scenario)


def test_several_workers_share_the_images_of_one_request(bundle: Bundle) -> None:
    with dispatching(bundle, workers=2, costs=even_costs(0.01)) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            task = setup.start(numbered(4), FIRST)
            for _ in range(2):
                await setup.stage.wait_held()
            setup.stage.open.set()
            await task

        run_scenario(scenario)


def test_low_priority_runs_after_normal(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.001)) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            images = numbered(9)
            tasks = [setup.start(images[:1], FULL)]
            await setup.stage.wait_held()
            for i in range(1, 9):
                priority = "low" if i < 5 else "normal"
                tasks.append(setup.start(images[i : i + 1], FIRST, priority=priority))
            await asyncio.sleep(0)
            setup.stage.open.set()
            await asyncio.gather(*tasks)

        run_scenario(scenario)
        assert setup.stage.ran(1) == [[0], [5], [6], [7], [8], [1], [2], [3], [4]]


def test_low_priority_is_not_starved(bundle: Bundle) -> None:
    with dispatching(bundle, costs=even_costs(0.001)) as setup:

        async def scenario() -> None:
            setup.stage.open.clear()
            images = numbered(60)
            tasks = [setup.start(images[:1], FIRST)]
            await setup.stage.wait_held()
            for i in range(1, 60):
                priority = "low" if i == 1 else "normal"
                tasks.append(setup.start(images[i : i + 1], FIRST, priority=priority))
            await asyncio.sleep(0)
            setup.stage.open.set()
            await asyncio.gather(*tasks)

        run_scenario(scenario)
        order = [number for batch in setup.stage.ran(1) for number in batch]
        assert 10 < order.index(1) < 20


def _photograph() -> bytes:
    """A JPEG with as many bytes as a photograph, and as few pixels as this bundle allows: costs are expected
    by bytes."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 140, 60)).save(file, "JPEG", comment=b"." * 65_000)
    head, rest = file.getvalue()[:2], file.getvalue()[2:]
    comment = rest[rest.index(b"\xff\xfe") :][: 65_000 + 4]
    return head + comment + rest
