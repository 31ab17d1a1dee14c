"""The scheduler's interface for asyncio: submit a request's images, await their predictions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serving.inference.engine import Engine
from serving.scheduling.costs import CostTable, measure
from serving.scheduling.delivery import Done, Request, post, release
from serving.scheduling.options import BatchResult, Load, Priority, RequestOptions
from serving.scheduling.queues import Block, Sample
from serving.scheduling.scheduler import Scheduler
from serving.telemetry.metrics import Metrics

# The deadline's timer fires this early, to leave time for writing the answer; at most this share of the
# time that is left.
ANSWER_S = 1e-3
ANSWER_SHARE = 0.1


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
            report=post,
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
        release(request)

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


def _resolve(future: asyncio.Future[BatchResult], found: BatchResult | Exception) -> None:
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)
