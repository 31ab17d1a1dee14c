"""The scheduler's interface for asyncio: submit a request's images, await their predictions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

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

# Shadows are started so long after their request was answered.
SHADOW_DELAY_S = 0.01
# The deadline's timer fires this early, to leave time for writing the answer; at most this share of the
# time that is left.
ANSWER_S = 1e-3
ANSWER_SHARE = 0.1


# Called on the event loop with a request's result, or with the error that `classify` raises.
Done = Callable[[BatchResult | Exception], None]


@dataclass(eq=False, slots=True)
class Request(Job):
    """A job whose caller waits on `loop`. The fields declared here belong to that loop.

    `running` is the number of samples that are not finished. `done` is None once the caller was called, or
    is gone. `add_shadows` starts the shadows of its samples, if it may have some.
    """

    options: RequestOptions = field(kw_only=True)
    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    done: Done | None = field(kw_only=True, default=None)
    timer: asyncio.TimerHandle | None = field(kw_only=True, default=None)
    results: dict[int, ImageResult] = field(default_factory=dict)
    running: int = 0
    result: BatchResult | None = None
    add_shadows: Callable[[list[Sample]], None] | None = None


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
        max_shadow_work: float = 0.0,
    ) -> None:
        """See Scheduler."""
        self._scheduler = Scheduler(
            workers=workers,
            max_wait=max_queue_ms / 1000,
            max_bytes=max_queue_bytes,
            max_pixels=max_pixels,
            metrics=metrics,
            report=_post,
            max_shadow_work=max_shadow_work,
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
        return await self._finish(_request_of_files(engine, files, options))

    def start(
        self, engine: Engine, files: Sequence[bytes], options: RequestOptions, done: Done
    ) -> Request:
        """`classify` without a task: `done` is called later on the running event loop, unless the request is
        dropped. Raises what `classify` raises at once; `files` has at least one."""
        request = _request_of_files(engine, files, options)
        self._submit(request, done)
        return request

    def drop(self, request: Request) -> None:
        """Drop what is not computed yet of a request whose caller is gone. To be called on its loop."""
        if request.running:
            self._scheduler.drop(request)
            request.running = 0
        _release(request)

    async def classify_pixels(
        self, engine: Engine, images: NDArray[np.uint8], options: RequestOptions
    ) -> BatchResult:
        """`classify` for images uint8 [N, height, width, 3] of the engine's input size.

        Raises ValueError if they are of another shape or type, and what `classify` raises.
        """
        engine.check(images, ())
        request = _request(engine, options)
        first = request.first_stage
        block = Block(len(images), images, [])
        size = images.nbytes // max(1, len(images))
        request.samples = [
            Sample(request, number, size, block=block, row=number, stage=first)
            for number in range(len(images))
        ]
        if engine.last_image_stage > 1:
            for sample, image in zip(request.samples, images, strict=True):
                sample.image = image
        return await self._finish(request)

    async def _finish(self, request: Request) -> BatchResult:
        if not request.samples:
            return BatchResult([], 0.0, 0.0, 0.0)
        future: asyncio.Future[BatchResult] = request.loop.create_future()
        try:
            self._submit(request, partial(_resolve, future))
            return await future
        finally:
            self.drop(request)
            # An error that it holds has this frame in its traceback: a cycle that would keep the files.
            del future

    def _submit(self, request: Request, done: Done) -> None:
        try:
            self._scheduler.submit(request)
        except Exception:
            # Break the reference cycles through samples, so that files are freed at once.
            request.samples = []
            raise
        request.done, request.running = done, len(request.samples)
        if request.shadow is not None:
            request.add_shadows = self._scheduler.add_shadows
        if request.deadline is not None:
            remaining = request.deadline - time.perf_counter()
            early = min(ANSWER_S, ANSWER_SHARE * max(remaining, 0.0))
            request.timer = request.loop.call_later(
                max(remaining - early, 0.0), self._scheduler.expire, request
            )


def _request_of_files(engine: Engine, files: Sequence[bytes], options: RequestOptions) -> Request:
    request = _request(engine, options)
    request.samples = [
        Sample(request, number, len(file), file=file) for number, file in enumerate(files)
    ]
    return request


def _request(engine: Engine, options: RequestOptions) -> Request:
    engine.check_policy(options.policy)
    return Request(
        engine,
        options.policy,
        options.deadline,
        low_priority=options.priority == "low",
        report_all_exits=options.on_exit is not None,
        run_all_exits=options.run_all_exits,
        shadow=options.shadow,
        first_stage=engine.first_stage(options.policy) if options.only_the_answer else 1,
        options=options,
        loop=asyncio.get_running_loop(),
    )


def _request_of(event: SampleEvent) -> Request:
    job = event.sample.job
    assert isinstance(job, Request)
    return job


def _resolve(future: asyncio.Future[BatchResult], found: BatchResult | Exception) -> None:
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


def _release(request: Request) -> None:
    """End the timer, and break the reference cycles through samples and through an error's traceback, so that
    the files are freed without the garbage collector."""
    if request.timer is not None:
        request.timer.cancel()
    request.samples, request.done, request.timer, request.result = [], None, None, None
    request.results.clear()


def _post(events: list[SampleEvent]) -> None:
    """Pass events to the loops that wait for them, with one call per loop."""
    first = _request_of(events[0]).loop
    own = [event for event in events if _request_of(event).loop is first]
    # A closed loop has no callers left.
    with contextlib.suppress(RuntimeError):
        first.call_soon_threadsafe(_deliver, own)
    if len(own) < len(events):
        _post([event for event in events if _request_of(event).loop is not first])


def _deliver(events: list[SampleEvent]) -> None:
    for event in events:
        request = _request_of(event)
        # Cancelled meanwhile, or failed by another of its images.
        if request.done is None:
            continue
        if isinstance(event.error, IMAGE_ERRORS):
            _note_failed(request, event, event.error)
        elif event.error is not None:
            request.running = 0
            _end(request, event.error)
            continue
        elif event.prediction is not None:
            _notify(request, event, event.prediction)
        request.running -= event.last
        if request.running == 0 and request.result is not None:
            _end(request, request.result.failure or request.result)


def _end(request: Request, found: BatchResult | Exception) -> None:
    done, samples = request.done, request.samples
    _release(request)
    if done is not None:
        done(found)
    if request.add_shadows is not None and isinstance(found, BatchResult):
        shadows = [sample.shadow for sample in samples if sample.shadow is not None]
        if shadows:
            request.loop.call_later(SHADOW_DELAY_S, request.add_shadows, shadows)


def _notify(request: Request, event: SampleEvent, prediction: Prediction) -> None:
    sample, options = event.sample, request.options
    if options.on_exit is not None:
        options.on_exit(ExitReached(sample.number, prediction, event.answered, event.computing))
    if not event.answered:
        return
    _record(request, event, prediction)


def _note_failed(request: Request, event: SampleEvent, error: ServingError) -> None:
    if request.options.on_failed is not None and len(request.samples) > 1:
        request.options.on_failed(ImageFailed(event.sample.number, error))
    _record(request, event, error)


def _record(request: Request, event: SampleEvent, found: ImageResult) -> None:
    """Note what the sample of `event` gets; with the last one the result is complete."""
    request.results[event.sample.number] = found
    if len(request.results) < len(request.samples):
        return
    predictions = [request.results[number] for number in range(len(request.samples))]
    result = BatchResult(predictions, event.waited, event.sample.decoding, event.computing)
    request.result = result
    if request.options.on_answer is not None and result.failure is None:
        request.options.on_answer(result)
