"""The scheduler behind its door, on the tiny bundle; timings are of a stage that tests hold back."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from exports.bundle.errors import PolicyError
from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from serving.errors import DeadlineExceededError, InvalidImageError, OverCapacityError
from serving.inference.engine import Engine, Prediction
from serving.scheduling.costs import MAX_BATCH, CostTable
from serving.scheduling.dispatcher import BatchResult, Dispatcher, ExitReached
from serving.scheduling.queues import Job, SampleEvent
from serving.telemetry.metrics import Metrics
from tests.serving.tiny_bundle import EXITS

EARLY = Policy(thresholds=(0.6, 0.5), max_exit=EXITS)
FIRST = EARLY.override(threshold=0)
FULL = EARLY.override(threshold=2)
ENSEMBLE = EARLY.override(mode="ensemble")
POLICIES = (EARLY, FIRST, FULL, ENSEMBLE, EARLY.override(mode="exit", max_exit=2))
Images = NDArray[np.uint8]
# Closer to its threshold than this, onnxruntime's last bit may send a sample either way.
NEAR = 1e-5


class Stage:
    """Stands in for an engine's `run_stage`: notes what runs, and can hold it back."""

    def __init__(self, engine: Engine) -> None:
        self.batches: list[tuple[int, list[int]]] = []
        self.open = threading.Event()
        self.open.set()
        self.held = threading.Semaphore(0)
        self.hold_at = 1
        self.pause = 0.0
        self._run = engine.run_stage
        self._lock = threading.Lock()
        engine.run_stage = self.run  # type: ignore[method-assign]

    def run(self, stage: int, inputs: Any) -> Any:
        with self._lock:
            # The first pixel of an image is its name, see `named`.
            names = [int(x) for x in inputs[:, 0, 0, 0]] if stage == 1 else []
            self.batches.append((stage, names or [len(inputs)]))
        if stage >= self.hold_at and not self.open.is_set():
            self.held.release()
            assert self.open.wait(10)
        time.sleep(self.pause)
        return self._run(stage, inputs)

    def ran(self, stage: int) -> list[list[int]]:
        return [names for ran, names in self.batches if ran == stage]

    async def wait_held(self) -> None:
        assert await asyncio.to_thread(self.held.acquire, True, 10)


class Punctual:
    """Checks that nothing is late, beyond what the event loop itself is late on a busy machine."""

    async def __aenter__(self) -> Punctual:
        self.worst = 0.0
        self._seen = time.perf_counter()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self._seen = time.perf_counter()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.perf_counter() - self._seen - 0.001)

    def check(self, deadline: float) -> None:
        now = time.perf_counter()
        # A stall that has just ended was not seen by `_watch` yet.
        stalled = now - self._seen - 0.001
        assert now - deadline < 0.005 + 2 * max(self.worst, stalled), now - deadline


def named(count: int) -> Images:
    images = np.zeros((count, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


@contextmanager
def working(
    bundle: Bundle, *, workers: int = 1, costs: CostTable | None = None, **bounds: float
) -> Iterator[tuple[Dispatcher, Engine, Stage, Metrics]]:
    metrics = Metrics()
    engine = Engine(bundle, on_stage=metrics.stage_observer("tiny"))
    limits: Any = {"max_queue_ms": 60_000, "max_queue_bytes": 1 << 30, **bounds}
    work = Dispatcher(workers=workers, max_pixels=10_000, metrics=metrics, **limits)
    work._scheduler.open(engine, costs or table(0.001, best=8))
    try:
        yield work, engine, Stage(engine), metrics
    finally:
        work.close()


def table(seconds: float, best: int = 1) -> CostTable:
    """Costs where batches up to `best` cost hardly more than one image."""
    return CostTable([{1: seconds, best: seconds * (1 if best == 1 else 1.1)}] * EXITS)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def same(found: Prediction, expected: Prediction, policy: Policy) -> bool:
    """Whether they agree, or could only differ because the confidence is next to a threshold."""
    if found.exit != expected.exit:
        shallow = min(found, expected, key=lambda prediction: prediction.exit)
        return abs(shallow.confidence - policy.thresholds[shallow.exit - 1]) < NEAR
    return (
        found.index == expected.index
        and found.reason == expected.reason
        and bool(np.allclose(found.probabilities, expected.probabilities, atol=1e-5))
    )


# Who gets which answer


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_each_image_of_each_request_gets_the_engines_answer_once(
    bundle: Bundle, images: Images, data: st.DataObject
) -> None:
    requests = data.draw(
        st.lists(
            st.tuples(
                st.lists(st.integers(0, 39), min_size=1, max_size=6),
                st.sampled_from(POLICIES),
                st.sampled_from(["normal", "low"]),
                st.sampled_from(["wait", "wait", "wait", "cancel", "watch", "beyond"]),
            ),
            min_size=1,
            max_size=12,
        )
    )
    workers = data.draw(st.integers(1, 3))
    best = data.draw(st.sampled_from([1, 3, 8, MAX_BATCH]))
    with working(bundle, workers=workers, costs=table(0.001, best)) as (work, engine, stage, _):

        async def ask(chosen: list[int], policy: Policy, priority: Any, how: str) -> None:
            seen: list[ExitReached] = []
            call = work.classify_pixels(
                engine,
                images[chosen],
                policy,
                priority=priority,
                on_exit=seen.append if how in ("watch", "beyond") else None,
                run_all_exits=how == "beyond",
            )
            if how == "cancel":
                task = asyncio.create_task(call)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return
            done = await call
            expected = engine.classify(images[chosen], policy)
            assert len(done.predictions) == len(chosen)
            for found, wanted in zip(done.predictions, expected, strict=True):
                assert same(found, wanted, policy)
            for image, found in enumerate(done.predictions):
                told = [one for one in seen if one.image == image]
                last = EXITS if how == "beyond" else found.exit
                if how in ("watch", "beyond"):
                    assert [one.prediction.exit for one in told] == list(range(1, last + 1))
                    assert [one.prediction for one in told if one.left] == [found]

        async def scenario() -> None:
            await asyncio.gather(*(ask(*request) for request in requests))

        run(scenario)
        assert work.pending == 0
        sizes = [len(names) if ran == 1 else names[0] for ran, names in stage.batches]
        # `classify`, the reference, runs through the same stage; its batches are of at most 6.
        assert max(sizes, default=0) <= max(best, 6)


def test_exits_are_told_in_their_order_however_slow_a_worker_is_to_tell(bundle: Bundle) -> None:
    with working(bundle, workers=2, costs=table(0.02, best=8)) as (work, engine, stage, _):
        stage.pause = 0.002
        report, slow = work._scheduler._report, itertools.cycle([0.0, 0.02, 0.0])

        def dawdle(seen: list[SampleEvent]) -> None:
            time.sleep(next(slow))
            report(seen)

        work._scheduler._report = dawdle

        async def ask(policy: Policy, run_all_exits: bool) -> None:
            seen: list[ExitReached] = []
            done = await work.classify_pixels(
                engine, named(2), policy, on_exit=seen.append, run_all_exits=run_all_exits
            )
            for image, found in enumerate(done.predictions):
                exits = [one.prediction.exit for one in seen if one.image == image]
                assert exits == list(range(1, (EXITS if run_all_exits else found.exit) + 1))

        async def scenario() -> None:
            async with asyncio.timeout(30):
                kinds = list(itertools.product((FIRST, FULL, EARLY), (False, True)))
                for _ in range(10):
                    await asyncio.gather(*(ask(*kind) for kind in kinds))

        run(scenario)


def test_threads_that_change_at_every_moment_lose_no_request(bundle: Bundle) -> None:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with working(bundle, workers=3, costs=table(0.001)) as (work, engine, _, __):

            async def scenario() -> None:
                async with asyncio.timeout(30):
                    for _ in range(50):
                        calls = (work.classify_pixels(engine, named(8), EARLY) for _ in range(8))
                        for done in await asyncio.gather(*calls):
                            assert len(done.predictions) == 8

            run(scenario)
    finally:
        sys.setswitchinterval(usual)


def test_samples_of_different_requests_run_as_one_batch(bundle: Bundle) -> None:
    with working(bundle) as (work, engine, stage, metrics):

        async def scenario() -> None:
            stage.open.clear()
            first = asyncio.create_task(work.classify_pixels(engine, named(1), FULL))
            await stage.wait_held()
            others = [
                asyncio.create_task(work.classify_pixels(engine, named(10)[i : i + 1], FULL))
                for i in range(1, 6)
            ]
            await asyncio.sleep(0)
            stage.open.set()
            await asyncio.gather(first, *others)

        run(scenario)
        assert stage.ran(1) == [[0], [1, 2, 3, 4, 5]]
        assert (
            'offramp_stage_batch_size_sum{model="tiny",stage="1"} 6.0' in metrics.render().decode()
        )


def test_those_who_stay_meet_others_at_the_next_stage(bundle: Bundle) -> None:
    with working(bundle, workers=2, costs=table(1e-5, best=8)) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.hold_at = 2
            stage.open.clear()
            tasks = []
            for _ in range(2):
                tasks.append(asyncio.create_task(work.classify_pixels(engine, named(1), FULL)))
                await stage.wait_held()
            stage.hold_at = EXITS + 1
            tasks += [asyncio.create_task(work.classify_pixels(engine, named(3), FULL))]
            await asyncio.sleep(0)
            stage.open.set()
            await asyncio.gather(*tasks)

        run(scenario)
        assert sum(size for (size,) in stage.ran(EXITS)) == 5


def test_requests_run_in_the_order_they_came(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.001, best=2)) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            pictures = named(20)
            tasks = [asyncio.create_task(work.classify_pixels(engine, pictures[:1], FIRST))]
            await stage.wait_held()
            for i in range(1, 20):
                call = work.classify_pixels(engine, pictures[i : i + 1], FIRST)
                tasks.append(asyncio.create_task(call))
            await asyncio.sleep(0)
            stage.open.set()
            await asyncio.gather(*tasks)

        run(scenario)
        assert [name for batch in stage.ran(1) for name in batch] == list(range(20))


def test_an_answer_does_not_wait_for_its_batch_to_go_deeper(bundle: Bundle) -> None:
    with working(bundle) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.hold_at = 2
            stage.open.clear()
            deep = asyncio.create_task(work.classify_pixels(engine, named(1), FULL))
            await stage.wait_held()
            stage.hold_at = EXITS + 1
            both = [
                asyncio.create_task(work.classify_pixels(engine, named(1), policy))
                for policy in (FIRST, FULL)
            ]
            await asyncio.sleep(0)
            stage.hold_at = 3
            stage.open.set()
            await both[0]
            await asyncio.gather(deep, *both)

        run(scenario)


def test_a_stage_that_fails_fails_its_requests_and_no_others(bundle: Bundle) -> None:
    with working(bundle) as (work, engine, _, _):
        usual = engine.judge

        def broken(policies: Any, *others: Any) -> Any:
            if FULL in policies:
                raise RuntimeError("never mind")
            return usual(policies, *others)

        engine.judge = broken  # type: ignore[method-assign]

        async def scenario() -> None:
            with pytest.raises(RuntimeError, match="never mind"):
                await work.classify_pixels(engine, named(2), FULL)
            assert len((await work.classify_pixels(engine, named(2), FIRST)).predictions) == 2

        run(scenario)
        assert work.pending == 0


def test_one_bad_file_ends_its_request_alone(bundle: Bundle, pngs: list[bytes]) -> None:
    with working(bundle) as (work, engine, _, _):

        async def scenario() -> None:
            good = asyncio.create_task(work.classify(engine, pngs[:3], FULL))
            bad = asyncio.create_task(work.classify(engine, [pngs[0], b"text", pngs[1]], FULL))
            with pytest.raises(InvalidImageError, match="Image 2 of 3"):
                await bad
            assert len((await good).predictions) == 3

        run(scenario)
        assert work.pending == 0


def test_pixels_and_policies_that_do_not_fit_are_refused(bundle: Bundle) -> None:
    with working(bundle) as (work, engine, _, _):

        async def scenario() -> None:
            with pytest.raises(ValueError, match="uint8"):
                await work.classify_pixels(engine, np.zeros((1, 4, 4, 3), np.uint8), FULL)
            with pytest.raises(PolicyError, match="2 exits"):
                await work.classify_pixels(engine, named(1), Policy(thresholds=(0.5,), max_exit=2))

        run(scenario)


# Priorities


def test_low_priority_runs_after_normal(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.001)) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            pictures = named(9)
            tasks = [asyncio.create_task(work.classify_pixels(engine, pictures[:1], FULL))]
            await stage.wait_held()
            for i in range(1, 9):
                call = work.classify_pixels(
                    engine, pictures[i : i + 1], FIRST, priority="low" if i < 5 else "normal"
                )
                tasks.append(asyncio.create_task(call))
            await asyncio.sleep(0)
            stage.open.set()
            await asyncio.gather(*tasks)

        run(scenario)
        assert stage.ran(1) == [[0], [5], [6], [7], [8], [1], [2], [3], [4]]


def test_low_priority_is_not_starved(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.001)) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            pictures = named(60)
            tasks = [asyncio.create_task(work.classify_pixels(engine, pictures[:1], FIRST))]
            await stage.wait_held()
            tasks += [
                asyncio.create_task(
                    work.classify_pixels(
                        engine, pictures[i : i + 1], FIRST, priority="low" if i == 1 else "normal"
                    )
                )
                for i in range(1, 60)
            ]
            await asyncio.sleep(0)
            stage.open.set()
            await asyncio.gather(*tasks)

        run(scenario)
        order = [name for batch in stage.ran(1) for name in batch]
        assert 10 < order.index(1) < 20


# Cancelling


def test_what_nobody_waits_for_is_not_computed(bundle: Bundle) -> None:
    with working(bundle) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            first = asyncio.create_task(work.classify_pixels(engine, named(1), FULL))
            await stage.wait_held()
            waiting = asyncio.create_task(work.classify_pixels(engine, named(5)[1:], FULL))
            await asyncio.sleep(0)
            assert work.pending == 5
            for task in (first, waiting):
                task.cancel()
            await asyncio.gather(first, waiting, return_exceptions=True)
            assert work.pending == 0
            stage.open.set()

        run(scenario)
    # The one that was running ends its stage, and goes no deeper.
    assert stage.batches == [(1, [0])]


# Deadlines


def test_a_deadline_answers_from_the_deepest_exit_that_fits(bundle: Bundle) -> None:
    costs = CostTable([{1: 0.001}, {1: 0.001}, {1: 1000.0}])
    with working(bundle, costs=costs) as (work, engine, stage, metrics):

        async def scenario() -> None:
            soon = time.perf_counter() + 100
            (found,) = (
                await work.classify_pixels(engine, named(1), FULL, deadline=soon)
            ).predictions
            assert time.perf_counter() < soon
            assert (found.exit, found.reason) == (2, "deadline")
            expected = engine.classify(named(1), FULL.override(mode="exit", max_exit=2))[0]
            assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5)

        run(scenario)
        assert len(stage.ran(3)) == 0
        assert 'offramp_expired_total{model="tiny"} 1.0' in metrics.render().decode()


@pytest.mark.serial
def test_an_answer_is_not_late_though_a_stage_is(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.0001)) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.hold_at = 2
            stage.open.clear()
            deadline = time.perf_counter() + 0.2
            async with Punctual() as punctual:
                done = await work.classify_pixels(engine, named(1), FULL, deadline=deadline)
                punctual.check(deadline)
            assert (done.predictions[0].exit, done.predictions[0].reason) == (1, "deadline")
            stage.open.set()

        run(scenario)
        assert len(stage.ran(3)) == 0


@pytest.mark.serial
def test_without_any_exit_the_deadline_is_an_error_in_time(bundle: Bundle) -> None:
    with working(bundle) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            first = asyncio.create_task(work.classify_pixels(engine, named(1), FIRST))
            await stage.wait_held()
            deadline = time.perf_counter() + 0.05
            async with Punctual() as punctual:
                with pytest.raises(DeadlineExceededError):
                    await work.classify_pixels(engine, named(3)[1:], FIRST, deadline=deadline)
                punctual.check(deadline)
            stage.open.set()
            await first

        run(scenario)
    # Expired before they cost anything.
    assert stage.batches == [(1, [0])]


@pytest.mark.serial
def test_a_tight_deadline_goes_before_deeper_work(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.02)) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            stage.hold_at = 1
            deep = asyncio.create_task(work.classify_pixels(engine, named(1), FULL))
            await stage.wait_held()
            relaxed = asyncio.create_task(work.classify_pixels(engine, named(3)[1:2], FIRST))
            await asyncio.sleep(0)
            urgent = asyncio.create_task(
                work.classify_pixels(
                    engine, named(3)[2:], FIRST, deadline=time.perf_counter() + 0.03
                )
            )
            await asyncio.sleep(0)
            stage.open.set()
            assert (await urgent).predictions[0].reason == "confident"
            await asyncio.gather(deep, relaxed)

        run(scenario)
    # The first image waits for stage 2 meanwhile.
    assert [names for ran, names in stage.batches][:2] == [[0], [2]]
    assert stage.batches[-1] == (1, [1])


def test_a_deadline_that_is_far_off_changes_nothing(bundle: Bundle, images: Images) -> None:
    with working(bundle, workers=2) as (work, engine, _, _):

        async def scenario() -> None:
            far = time.perf_counter() + 1000
            done = await work.classify_pixels(engine, images, EARLY, deadline=far)
            for found, expected in zip(
                done.predictions, engine.classify(images, EARLY), strict=True
            ):
                assert same(found, expected, EARLY)

        run(scenario)


@pytest.mark.serial
@settings(max_examples=25, deadline=None)
@given(
    budgets=st.lists(st.floats(0.001, 0.06), min_size=1, max_size=8),
    pause=st.sampled_from([0.001, 0.005, 0.02]),
    guess=st.sampled_from([0.0001, 0.005, 0.02]),
)
def test_no_answer_is_late_whatever_the_costs_and_guesses(
    bundle: Bundle, budgets: list[float], pause: float, guess: float
) -> None:
    with working(bundle, workers=2, costs=table(guess, best=4)) as (work, engine, stage, _):
        stage.pause = pause

        async def ask(budget: float, punctual: Punctual) -> None:
            deadline = time.perf_counter() + budget
            try:
                done = await work.classify_pixels(engine, named(2), FULL, deadline=deadline)
            except DeadlineExceededError:
                pass
            else:
                assert len(done.predictions) == 2
            punctual.check(deadline)

        async def scenario() -> None:
            async with Punctual() as punctual:
                await asyncio.gather(*(ask(budget, punctual) for budget in budgets))

        run(scenario)
        assert work.pending == 0


# Load


@pytest.mark.serial
def test_beyond_the_wait_allowed_requests_are_refused_at_once(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.1), max_queue_ms=1000) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            # 3 stages of 0.1 s each: the fifth one would have to wait for 1.2 s.
            tasks = [
                asyncio.create_task(work.classify_pixels(engine, named(1), FULL)) for _ in range(4)
            ]
            await asyncio.sleep(0)
            started = time.perf_counter()
            with pytest.raises(OverCapacityError) as refused:
                await work.classify_pixels(engine, named(1), FULL)
            assert time.perf_counter() - started < 0.01
            assert refused.value.retry_after == pytest.approx(0.2, abs=0.01)
            assert refused.value.headers["Retry-After"] == "1"
            stage.open.set()
            await asyncio.gather(*tasks)
            await work.classify_pixels(engine, named(1), FULL)

        run(scenario)


def test_the_wait_is_what_the_policies_will_cost(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.1), max_queue_ms=1000) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            # At exit 1 each costs 0.1 s only, so that eleven fit.
            tasks = [
                asyncio.create_task(work.classify_pixels(engine, named(1), FIRST))
                for _ in range(11)
            ]
            await asyncio.sleep(0)
            with pytest.raises(OverCapacityError):
                work.check()
            stage.open.set()
            await asyncio.gather(*tasks)

        run(scenario)


def test_low_priority_is_refused_first(bundle: Bundle) -> None:
    with working(bundle, costs=table(0.1), max_queue_ms=200) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            low_priority = asyncio.create_task(
                work.classify_pixels(engine, named(1), FULL, priority="low")
            )
            await asyncio.sleep(0)
            with pytest.raises(OverCapacityError):
                work.check("low")
            work.check("normal")
            stage.open.set()
            await low_priority

        run(scenario)


def test_waiting_bytes_are_bounded(bundle: Bundle, pngs: list[bytes]) -> None:
    with working(bundle, max_queue_bytes=10_000) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            first = asyncio.create_task(work.classify(engine, pngs[:1], FIRST))
            await stage.wait_held()
            second = asyncio.create_task(work.classify(engine, pngs[:1], FIRST))
            await asyncio.sleep(0)
            with pytest.raises(OverCapacityError, match="bytes"):
                await work.classify(engine, [b"\0" * 10_000], FIRST)
            stage.open.set()
            await asyncio.gather(first, second)

        run(scenario)


def test_an_idle_server_starts_at_once(bundle: Bundle) -> None:
    with working(bundle, workers=2) as (work, engine, _, _):

        async def scenario() -> None:
            waits = []
            for _ in range(50):
                await asyncio.sleep(0.002)
                waits.append((await work.classify_pixels(engine, named(1), FIRST)).queue)
            # No tick, no window to collect a batch in: what is left is waking a thread.
            assert sorted(waits)[len(waits) // 2] < 0.001

        run(scenario)


def test_several_workers_share_what_one_request_brings(bundle: Bundle) -> None:
    with working(bundle, workers=2, costs=table(0.01)) as (work, engine, stage, _):

        async def scenario() -> None:
            stage.open.clear()
            task = asyncio.create_task(work.classify_pixels(engine, named(4), FIRST))
            for _ in range(2):
                await stage.wait_held()
            stage.open.set()
            await task

        run(scenario)


@pytest.mark.parametrize("error", [InvalidImageError, DeadlineExceededError, OverCapacityError])
def test_a_request_that_fails_leaves_nothing_to_the_collector_of_cycles(
    bundle: Bundle, error: type[Exception]
) -> None:
    def kept() -> int:
        return sum(issubclass(type(found), Job) for found in gc.get_objects())

    late, refused = error is DeadlineExceededError, error is OverCapacityError
    with working(bundle, max_queue_ms=1e-3 if refused else 60_000) as (work, engine, stage, _):

        async def scenario() -> None:
            if refused:
                stage.open.clear()
                held = asyncio.create_task(work.classify_pixels(engine, named(1), FULL))
                await stage.wait_held()
            failed = 0
            for _ in range(100):
                deadline = time.perf_counter() - 1 if late else None
                try:
                    await work.classify(engine, [b"no image"], FULL, deadline=deadline)
                except error:
                    failed += 1
            # Deadlines of what is over are forgotten by the dozen, and a worker may have a batch in hand.
            assert (failed, kept() < 50) == (100, True)
            if refused:
                stage.open.set()
                await held

        gc.collect()
        gc.disable()
        try:
            run(scenario)
        finally:
            gc.enable()


# Engines come and go


def test_retiring_waits_for_the_engines_last_sample(bundle: Bundle) -> None:
    with working(bundle) as (work, engine, stage, _):

        async def scenario() -> None:
            await work.retire(Engine(bundle))
            stage.open.clear()
            task = asyncio.create_task(work.classify_pixels(engine, named(2), FULL))
            await stage.wait_held()
            retiring = asyncio.create_task(work.retire(engine))
            await asyncio.sleep(0.02)
            assert not retiring.done()
            stage.open.set()
            await retiring
            assert len((await task).predictions) == 2
            # A request that had chosen its engine before is answered all the same.
            late = await work.classify_pixels(engine, named(2), FULL)
            assert len(late.predictions) == 2
            assert work._scheduler._selector.model_queues == {}

        run(scenario)


def test_opening_measures_and_warms(bundle: Bundle) -> None:
    work = Dispatcher(
        workers=1, max_queue_ms=1000, max_queue_bytes=1000, max_pixels=1000, metrics=Metrics()
    )
    engine = Engine(bundle)
    work.open(engine)
    queues = work._scheduler._selector.model_queues[engine]
    for stage in range(1, EXITS + 1):
        seconds = [queues.costs.seconds(stage, size) for size in range(MAX_BATCH + 1)]
        assert seconds == sorted(seconds)
        assert 1 <= queues.costs.best_batch(stage) <= MAX_BATCH

    async def scenario() -> None:
        assert isinstance(await work.classify_pixels(engine, named(1), FULL), BatchResult)

    run(scenario)
    work.close()
