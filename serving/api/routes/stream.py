"""POST /v1/classify/stream: every exit as it is reached, as server-sent events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.api.access_log import note_answer
from serving.api.asgi.disconnect import CancelOnDisconnect
from serving.api.asgi.fast_path import CANCELLED
from serving.api.budgets import LIMITED_HEADERS, limit, settle
from serving.api.dispatching import refund, resolve_again
from serving.api.image_bodies import read_images
from serving.api.query import ResolvedRequest, StreamQuery, resolve
from serving.api.routes.classify import ERRORS, REQUEST_BODY
from serving.api.schemas import ErrorAnswer, ImageErrorEvent, compose, describe_exit, timing
from serving.connection import EXTENSION, FILLER
from serving.errors import InternalError, ServingError
from serving.scheduling.options import BatchResult, ExitReached, ImageFailed, RequestOptions
from serving.service import Service, of_request

log = logging.getLogger("offramp.serving")
PATH = "/v1/classify/stream"
# Clients of server-sent events ignore it.
COMMENT = b":\n\n"
# The schema of one event: OpenAPI has none for a stream of them.
EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["exit", "answer", "error", "done"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `exit` for every image and exit reached, `answer` with what "
        "POST /v1/classify answers, `error` for an image of several that fails or, without `image`, if "
        "the request fails, and `done` at the end.",
        "content": {"text/event-stream": {"schema": EVENT}},
    }
}
router = APIRouter(tags=["classify"])


@router.post(PATH, responses={**ERRORS, **EVENTS}, openapi_extra={"requestBody": REQUEST_BODY})
async def stream(request: Request, query: Annotated[StreamQuery, Query()]) -> Response:
    """Classify images, with an event for every exit that is reached."""
    started = time.perf_counter()
    service = of_request(request)
    resolved = resolve(query, request.scope, service, started)
    files = await read_images(request, service.settings)
    all_exits = query.run_all_exits
    resolved = limit(service, request.scope, resolved, len(files), all_exits=all_exits)
    if resolved.reservation is not None:
        all_exits = resolved.reservation.all_exits
    kept = files if service.keeps_images(resolved.trial) else []
    feed = _Feed(service, resolved, kept, all_exits, started, request.scope)
    task = asyncio.create_task(feed.classify(files))
    task.add_done_callback(feed.end)
    try:
        async with CancelOnDisconnect(request):
            first = await feed.events.get()
        if first is None:
            # Nothing was sent yet, so the error is answered like any other.
            task.result()
    except BaseException:
        task.cancel()
        # The task holds the error and the error this frame: a cycle that keeps the images.
        del task
        raise
    return _Stream(first, feed, task)


@dataclass
class _Feed:
    """The queue of a request's events, with None at the end. `begun` is whether there was one, `counted`
    whether its outcome was counted."""

    service: Service
    resolved: ResolvedRequest
    files: list[bytes]
    run_all_exits: bool
    started: float
    scope: Scope
    events: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    begun: bool = False
    counted: bool = False

    async def classify(self, files: list[bytes]) -> BatchResult:
        """Classify `files`. Where a canary fails before the first event, the stable version answers."""
        try:
            return await self._classify(files)
        except Exception as error:
            again = resolve_again(self.service, self.resolved, error, begun=self.begun)
            if again is None:
                refund(self.resolved)
                raise
            self.resolved = again
        try:
            return await self._classify(files)
        except Exception:
            refund(self.resolved)
            raise

    async def _classify(self, files: list[bytes]) -> BatchResult:
        resolved = self.resolved
        options = RequestOptions(
            resolved.policy,
            resolved.deadline,
            resolved.priority,
            on_exit=self.exit,
            on_failed=self.image_failed,
            on_answer=self.answer,
            run_all_exits=self.run_all_exits,
            shadow=resolved.shadow,
        )
        return await self.service.dispatcher.classify(resolved.model.engine, files, options)

    def exit(self, reached: ExitReached) -> None:
        manifest = self.resolved.model.engine.manifest
        elapsed = time.perf_counter() - self.started
        event = describe_exit(reached, manifest, self.resolved.top_k, elapsed)
        self.begun = True
        self.events.put_nowait(_event("exit", event))

    def image_failed(self, failed: ImageFailed) -> None:
        error = failed.error
        event = ImageErrorEvent(failed.image, str(error), error.code)
        self.begun = True
        self.events.put_nowait(_event("error", event))

    def answer(self, result: BatchResult) -> None:
        total = time.perf_counter() - self.started
        model = self.resolved.model
        self.service.answered(
            self.scope,
            model,
            self.resolved.policy,
            self.files,
            result,
            total,
            own_options=self.resolved.own_options or self.run_all_exits,
            low_priority=self.resolved.priority == "low",
            trial=self.resolved.trial,
        )
        if self.resolved.reservation is not None:
            settle(self.resolved.reservation, model, result.predictions)
        self.counted = True
        spent = timing(result, total)
        note_answer(self.scope, result.predictions, spent)
        limited = self.resolved.limited
        found = compose(model, result, self.resolved.top_k, spent, limited=limited)
        self.events.put_nowait(_event("answer", found))

    def fail(self, error: BaseException) -> bytes:
        if not isinstance(error, ServingError):
            log.error("a stream failed", exc_info=error)
            error = InternalError()
        self.failed(error.code)
        return _event("error", ErrorAnswer(str(error), error.code))

    def failed(self, code: str) -> None:
        """Count the request as failed, unless it was answered."""
        if not self.counted:
            self.service.metrics.failed(self.resolved.model.name, code)
            self.counted = True

    def end(self, _: object) -> None:
        self.events.put_nowait(None)


class _Stream(StreamingResponse):
    """`first` and the other events of `feed`, then an error if `task` failed."""

    def __init__(self, first: bytes | None, feed: _Feed, task: asyncio.Task[BatchResult]) -> None:
        # A proxy must pass events on at once.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if feed.resolved.limited:
            headers |= LIMITED_HEADERS
        super().__init__(
            _events(first, feed, task), media_type="text/event-stream", headers=headers
        )
        feed.scope.get("extensions", {}).get(EXTENSION, {})[FILLER] = COMMENT
        self._feed = feed
        self._task = task

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # If the client disconnected, even before the first event, the rest is not needed.
            self._task.cancel()
            self._feed.failed(CANCELLED)


async def _events(
    first: bytes | None, feed: _Feed, task: asyncio.Task[BatchResult]
) -> AsyncIterator[bytes]:
    event = first
    while event is not None:
        yield event
        event = await feed.events.get()
    error = task.exception()
    if error is not None:
        yield feed.fail(error)
    yield _event("done", {})


def _event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
