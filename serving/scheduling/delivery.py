"""Brings the scheduler's events to the event loops of the requests that wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.errors import IMAGE_ERRORS, ServingError
from serving.inference.engine import Prediction
from serving.scheduling.options import (
    BatchResult,
    ExitReached,
    ImageFailed,
    ImageResult,
    RequestOptions,
)
from serving.scheduling.queues import Sample, SampleEvent, ScheduledRequest

# Shadows are started so long after their request was answered.
SHADOW_DELAY_S = 0.01

# Called on the event loop with a request's result, or with the error that `classify` raises.
Done = Callable[[BatchResult | Exception], None]


@dataclass(eq=False, slots=True)
class Request(ScheduledRequest):
    """A request whose caller waits on `loop`. The fields declared here belong to that loop.

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


def release(request: Request) -> None:
    """End the timer, and break the reference cycles through samples and through an error's traceback, so that
    the files are freed without the garbage collector."""
    if request.timer is not None:
        request.timer.cancel()
    request.samples, request.done, request.timer, request.result = [], None, None, None
    request.results.clear()


def post(events: list[SampleEvent]) -> None:
    """Pass events to the loops that wait for them, with one call per loop."""
    first = _request_of(events[0]).loop
    own = [event for event in events if _request_of(event).loop is first]
    # A closed loop has no callers left.
    with contextlib.suppress(RuntimeError):
        first.call_soon_threadsafe(_deliver, own)
    if len(own) < len(events):
        post([event for event in events if _request_of(event).loop is not first])


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
    release(request)
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


def _request_of(event: SampleEvent) -> Request:
    request = event.sample.request
    assert isinstance(request, Request)
    return request
