"""The door to the scheduler: an event loop's requests go in, their predictions come out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Policy
from serving.inference.engine import Engine, Prediction
from serving.scheduling.costs import CostTable, measure
from serving.scheduling.queues import Block, Job, Sample, SampleEvent
from serving.scheduling.scheduler import Scheduler
from serving.telemetry.metrics import Metrics

Priority = Literal["normal", "low"]
# What remains to be done when a deadline comes: writing the answer. At most this share of the time.
ANSWER_S = 1e-3
ANSWER_SHARE = 0.1


@dataclass(frozen=True)
class BatchResult:
    """A request's predictions, one per image, and where the time went of the image that was answered
    last, in seconds."""

    predictions: list[Prediction]
    queue: float
    decode: float
    compute: float


@dataclass(frozen=True)
class ExitReached:
    """Image `image` of a request, from 0, reached an exit; `left` if that is its answer."""

    image: int
    prediction: Prediction
    left: bool


OnExit = Callable[[ExitReached], None]
OnAnswer = Callable[[BatchResult], None]


@dataclass(eq=False, slots=True)
class _Request(Job):
    """A job with someone waiting for it on `loop`; only that loop touches what is declared here.
    `future` is None once nobody waits any more."""

    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    future: asyncio.Future[BatchResult] | None = field(kw_only=True)
    on_exit: OnExit | None = None
    on_answer: OnAnswer | None = None
    answers: dict[int, Prediction] = field(default_factory=dict)
    running: int = 0
    result: BatchResult | None = None


class Dispatcher:
    """Worker threads that decode and compute, shared by all requests."""

    def __init__(
        self,
        *,
        workers: int,
        max_queue_ms: float,
        max_queue_bytes: int,
        max_pixels: int,
        metrics: Metrics,
    ) -> None:
        self._scheduler = Scheduler(
            workers=workers,
            max_wait=max_queue_ms / 1000,
            max_bytes=max_queue_bytes,
            max_pixels=max_pixels,
            metrics=metrics,
            report=_post,
        )

    @property
    def pending(self) -> int:
        """Images accepted and not done with."""
        return self._scheduler.in_flight

    def open(self, engine: Engine) -> CostTable:
        """Warm `engine` up and measure what its stages cost; takes seconds, in any thread."""
        engine.warm_up()
        costs = measure(engine)
        self._scheduler.open(engine, costs)
        return costs

    async def retire(self, engine: Engine) -> None:
        """Wait until none of the engine's samples is left, then forget it."""
        loop = asyncio.get_running_loop()
        empty = asyncio.Event()

        def notify() -> None:
            loop.call_soon_threadsafe(empty.set)

        self._scheduler.retire(engine, notify)
        await empty.wait()

    def close(self) -> None:
        """Finish what is accepted and end the threads."""
        self._scheduler.close()

    def check(self, priority: Priority = "normal") -> None:
        """Raise OverCapacityError if a request would be refused now, before its body is read."""
        self._scheduler.check(priority == "low")

    async def classify(
        self,
        engine: Engine,
        files: Sequence[bytes],
        policy: Policy,
        *,
        deadline: float | None = None,
        priority: Priority = "normal",
        on_exit: OnExit | None = None,
        on_answer: OnAnswer | None = None,
        run_all_exits: bool = False,
    ) -> BatchResult:
        """Decode `files` and classify them, each leaving by itself.

        `deadline` is a `time.perf_counter()` value: what has reached an exit by then is answered from
        the deepest one so far. `on_exit` is called on the event loop, once per image and exit reached,
        `on_answer` when the answer stands; with `run_all_exits` the exits behind it follow, and only then
        does this return. Cancelling it drops what is not computed yet.

        Raises OverCapacityError at once if the wait would be too long, InvalidImageError if a file
        cannot be decoded, DeadlineExceededError if one had not reached the first exit in time,
        PolicyError if `policy` is for another number of exits.
        """
        request = _request(engine, policy, deadline, priority, on_exit, on_answer, run_all_exits)
        request.samples = [
            Sample(request, number, len(file), file=file) for number, file in enumerate(files)
        ]
        return await self._finish(request)

    async def classify_pixels(
        self,
        engine: Engine,
        images: NDArray[np.uint8],
        policy: Policy,
        *,
        deadline: float | None = None,
        priority: Priority = "normal",
        on_exit: OnExit | None = None,
        on_answer: OnAnswer | None = None,
        run_all_exits: bool = False,
    ) -> BatchResult:
        """`classify` for images uint8 [N, height, width, 3] of the size that the engine takes.

        Raises ValueError if they are of another shape or type, and what `classify` raises.
        """
        engine.check(images, ())
        request = _request(engine, policy, deadline, priority, on_exit, on_answer, run_all_exits)
        block = Block(len(images), images, [])
        size = images.nbytes // max(1, len(images))
        request.samples = [
            Sample(request, number, size, block=block, row=number, stage=1)
            for number in range(len(images))
        ]
        return await self._finish(request)

    async def _finish(self, request: _Request) -> BatchResult:
        if not request.samples:
            return BatchResult([], 0.0, 0.0, 0.0)
        assert request.future is not None
        timer = None
        try:
            self._scheduler.submit(request)
            request.running = len(request.samples)
            if request.deadline is not None:
                left = request.deadline - time.perf_counter()
                early = min(ANSWER_S, ANSWER_SHARE * max(left, 0.0))
                timer = request.loop.call_later(
                    max(left - early, 0.0), self._scheduler.expire, request
                )
            return await request.future
        finally:
            if timer is not None:
                timer.cancel()
            if request.running:
                self._scheduler.drop(request)
            # Samples know their request, and an error knows, by its traceback, who waited for it: none
            # of the files should have to wait for the collector of cycles.
            request.samples, request.future = [], None


def _request(
    engine: Engine,
    policy: Policy,
    deadline: float | None,
    priority: Priority,
    on_exit: OnExit | None,
    on_answer: OnAnswer | None,
    run_all_exits: bool,
) -> _Request:
    engine.check_policy(policy)
    loop = asyncio.get_running_loop()
    return _Request(
        engine,
        policy,
        deadline,
        low_priority=priority == "low",
        report_all_exits=on_exit is not None,
        run_all_exits=run_all_exits,
        loop=loop,
        future=loop.create_future(),
        on_exit=on_exit,
        on_answer=on_answer,
    )


def _post(events: list[SampleEvent]) -> None:
    """Bring what became of samples to the loops that wait for them; one call each."""
    loops = {_of(one).loop for one in events}
    for loop in loops:
        own = events if len(loops) == 1 else [one for one in events if _of(one).loop is loop]
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver, own)


def _deliver(events: list[SampleEvent]) -> None:
    for one in events:
        request = _of(one)
        # Given up meanwhile, or failed by another of its images.
        if request.future is None or request.future.done():
            continue
        if one.error is not None:
            request.running = 0
            request.future.set_exception(one.error)
            continue
        if one.prediction is not None:
            _notify(request, one, one.prediction)
        request.running -= one.last
        if request.running == 0 and request.result is not None:
            request.future.set_result(request.result)


def _notify(request: _Request, one: SampleEvent, prediction: Prediction) -> None:
    sample = one.sample
    if request.on_exit is not None:
        request.on_exit(ExitReached(sample.number, prediction, one.answered))
    if not one.answered:
        return
    request.answers[sample.number] = prediction
    if len(request.answers) == len(request.samples):
        predictions = [request.answers[number] for number in range(len(request.samples))]
        request.result = BatchResult(predictions, sample.waited, sample.decoding, sample.computing)
        if request.on_answer is not None:
            request.on_answer(request.result)


def _of(one: SampleEvent) -> _Request:
    request = one.sample.job
    assert isinstance(request, _Request)
    return request
