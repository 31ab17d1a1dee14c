"""The scheduler's interface for asyncio: submit a request's images, await their predictions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.errors import IMAGE_ERRORS, ServingError
from serving.inference.engine import Engine, Prediction
from serving.scheduling.costs import CostTable, measure
from serving.scheduling.options import (
    BatchResult,
    ExitReached,
    ImageFailed,
    ImageResult,
    Load,
    Priority,
    RequestOptions,
)
from serving.scheduling.queues import Block, Job, Sample, SampleEvent
from serving.scheduling.scheduler import Scheduler
from serving.telemetry.metrics import Metrics

# The deadline's timer fires this early, to leave time for writing the answer; at most this share of the
# time that is left.
ANSWER_S = 1e-3
ANSWER_SHARE = 0.1


@dataclass(eq=False, slots=True)
class _Request(Job):
    """A job whose caller waits on `loop`. The fields declared here belong to that loop.

    `running` is the number of samples that are not finished. `future` is None once the caller is gone.
    """

    options: RequestOptions = field(kw_only=True)
    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    future: asyncio.Future[BatchResult] | None = field(kw_only=True)
    results: dict[int, ImageResult] = field(default_factory=dict)
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
        """Accepted images that are not finished."""
        return self._scheduler.in_flight

    def open(self, engine: Engine) -> CostTable:
        """Warm `engine` up and measure its stages. Takes seconds; any thread may call it."""
        engine.warm_up()
        costs = measure(engine)
        self._scheduler.open(engine, costs)
        return costs

    async def retire(self, engine: Engine) -> None:
        """Wait until the engine's last sample is finished, then remove the engine."""
        loop = asyncio.get_running_loop()
        empty = asyncio.Event()

        def notify() -> None:
            loop.call_soon_threadsafe(empty.set)

        self._scheduler.retire(engine, notify)
        await empty.wait()

    def close(self) -> None:
        """Finish the accepted images and end the threads."""
        self._scheduler.close()

    def load(self, engine: Engine) -> Load | None:
        """The load of `engine`; None if it is not open."""
        return self._scheduler.load(engine)

    def check(self, priority: Priority = "normal") -> None:
        """Raise OverCapacityError if a request would be refused now, before its body is read."""
        self._scheduler.check(priority == "low")

    async def classify(
        self, engine: Engine, files: Sequence[bytes], options: RequestOptions
    ) -> BatchResult:
        """Decode `files` and classify them. Cancelling this drops what is not computed yet.

        A file that cannot be decoded has InvalidImageError in place of its prediction, and an image that
        did not reach the first exit in time DeadlineExceededError; raises such an error if it is the
        failure of the whole request (`BatchResult.failure`). Raises OverCapacityError at once if the wait
        would be too long, PolicyError if the policy is for another number of exits.
        """
        request = _request(engine, options)
        request.samples = [
            Sample(request, number, len(file), file=file) for number, file in enumerate(files)
        ]
        return await self._finish(request)

    async def classify_pixels(
        self, engine: Engine, images: NDArray[np.uint8], options: RequestOptions
    ) -> BatchResult:
        """`classify` for images uint8 [N, height, width, 3] of the engine's input size.

        Raises ValueError if they are of another shape or type, and what `classify` raises.
        """
        engine.check(images, ())
        request = _request(engine, options)
        block = Block(len(images), images, [])
        size = images.nbytes // max(1, len(images))
        request.samples = [
            Sample(request, number, size, block=block, row=number, stage=1)
            for number in range(len(images))
        ]
        if engine.last_image_stage > 1:
            for sample, image in zip(request.samples, images, strict=True):
                sample.image = image
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
                remaining = request.deadline - time.perf_counter()
                early = min(ANSWER_S, ANSWER_SHARE * max(remaining, 0.0))
                timer = request.loop.call_later(
                    max(remaining - early, 0.0), self._scheduler.expire, request
                )
            return await request.future
        finally:
            if timer is not None:
                timer.cancel()
            if request.running:
                self._scheduler.drop(request)
            # Break the reference cycles through samples and through an error's traceback, so that the
            # files are freed without the garbage collector.
            request.samples, request.future, request.result = [], None, None
            request.results.clear()


def _request(engine: Engine, options: RequestOptions) -> _Request:
    engine.check_policy(options.policy)
    loop = asyncio.get_running_loop()
    return _Request(
        engine,
        options.policy,
        options.deadline,
        low_priority=options.priority == "low",
        report_all_exits=options.on_exit is not None,
        run_all_exits=options.run_all_exits,
        options=options,
        loop=loop,
        future=loop.create_future(),
    )


def _request_of(event: SampleEvent) -> _Request:
    job = event.sample.job
    assert isinstance(job, _Request)
    return job


def _post(events: list[SampleEvent]) -> None:
    """Pass events to the loops that wait for them, with one call per loop."""
    loops = {_request_of(event).loop for event in events}
    for loop in loops:
        own = events if len(loops) == 1 else [e for e in events if _request_of(e).loop is loop]
        # A closed loop has no callers left.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver, own)


def _deliver(events: list[SampleEvent]) -> None:
    for event in events:
        request = _request_of(event)
        # Cancelled meanwhile, or failed by another of its images.
        if request.future is None or request.future.done():
            continue
        if isinstance(event.error, IMAGE_ERRORS):
            _note_failed(request, event, event.error)
        elif event.error is not None:
            request.running = 0
            request.future.set_exception(event.error)
            continue
        elif event.prediction is not None:
            _notify(request, event, event.prediction)
        request.running -= event.last
        if request.running == 0 and request.result is not None:
            if (failure := request.result.failure) is not None:
                request.future.set_exception(failure)
            else:
                request.future.set_result(request.result)


def _notify(request: _Request, event: SampleEvent, prediction: Prediction) -> None:
    sample, options = event.sample, request.options
    if options.on_exit is not None:
        options.on_exit(ExitReached(sample.number, prediction, event.answered, event.computing))
    if not event.answered:
        return
    _record(request, event, prediction)


def _note_failed(request: _Request, event: SampleEvent, error: ServingError) -> None:
    if request.options.on_failed is not None and len(request.samples) > 1:
        request.options.on_failed(ImageFailed(event.sample.number, error))
    _record(request, event, error)


def _record(request: _Request, event: SampleEvent, found: ImageResult) -> None:
    """Note what the sample of `event` gets; with the last one the result is complete."""
    request.results[event.sample.number] = found
    if len(request.results) < len(request.samples):
        return
    predictions = [request.results[number] for number in range(len(request.samples))]
    result = BatchResult(predictions, event.waited, event.sample.decoding, event.computing)
    request.result = result
    if request.options.on_answer is not None and result.failure is None:
        request.options.on_answer(result)
