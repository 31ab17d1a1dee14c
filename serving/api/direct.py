"""Classifying one image without a task and without the layers of FastAPI and Starlette, which together cost
more than a small network's stages. The server below ASGI calls it; requests of any other kind, and those that
are wrong, take the usual way. Both have the same answers, counts and logs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from fastapi.exceptions import RequestValidationError
from starlette.types import Scope

from serving.api.access_log import note_answer
from serving.api.asgi.completion import Completion, CompletionHook
from serving.api.asgi.fast_path import CANCELLED, read_query
from serving.api.asgi.middleware import CLIENT_DISCONNECTED, fault
from serving.api.asgi.refusals import Refuse
from serving.api.budgets import BUDGET, HEADER, limit
from serving.api.dispatching import refund, resolve_again
from serving.api.image_bodies import is_one_image, media_type
from serving.api.query import ClassifyQuery, ResolvedRequest, resolve
from serving.api.routes import classify
from serving.connection import Answer
from serving.errors import ServingError
from serving.scheduling.delivery import Request
from serving.scheduling.options import BatchResult
from serving.service import Service

log = logging.getLogger("offramp.serving")

LIMITED_LINE = f"{HEADER.lower()}: {BUDGET}\r\n"
# Headers of what only the application does.
INDIRECT = frozenset({b"transfer-encoding", b"content-encoding", b"expect"})


class DirectClassifier:
    """Recognises requests to classify one image by their heads."""

    def __init__(self, service: Service, refuse: Refuse, hooks: Sequence[CompletionHook]) -> None:
        """`refuse` and `hooks` are those of `RequestContext`."""
        self.service = service
        self.refuse = refuse
        self.hooks = hooks
        self._limit = service.settings.max_body_bytes

    def begin(self, scope: Scope) -> DirectImage | None:
        """The request of `scope`, if its body will be one image that is small enough and its query is right;
        None for any other request."""
        if scope["path"] != classify.PATH or scope["method"] != "POST":
            return None
        started = time.perf_counter()
        length = content_type = b""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = content_type or value
            elif name == b"content-length":
                length = value
            elif name in INDIRECT:
                return None
        if not length.isdigit() or int(length) > self._limit:
            return None
        if not is_one_image(media_type(content_type)):
            return None
        try:
            query = read_query(ClassifyQuery, scope["query_string"])
            assert isinstance(query, ClassifyQuery)
            resolved = resolve(query, scope, self.service, started)
        except (ServingError, RequestValidationError):
            return None
        return DirectImage(self, scope, resolved, started)


class DirectImage:
    """One request to classify one image; a `DirectRequest` of `serving.connection`."""

    __slots__ = (
        *("_answer", "_completion", "_files", "_of", "_request", "_resolved", "_scope"),
        "_started",
    )

    def __init__(
        self, of: DirectClassifier, scope: Scope, resolved: ResolvedRequest, started: float
    ) -> None:
        self._of = of
        self._scope = scope
        self._resolved = resolved
        self._started = started
        self._completion = Completion(of.hooks, scope, started)
        scope["state"]["request_id"] = self._completion.request_id
        self._files: list[bytes] = []
        self._request: Request | None = None
        self._answer: Callable[[Answer], None] | None = None

    def start(self, body: bytes, answer: Callable[[Answer], None]) -> None:
        """Classify the image in `body`, and call `answer`."""
        self._files = [body]
        self._answer = answer
        self._resolved = limit(self._of.service, self._scope, self._resolved, 1)
        self._submit()

    def _submit(self) -> None:
        resolved, dispatcher = self._resolved, self._of.service.dispatcher
        try:
            self._request = dispatcher.start(
                resolved.model.engine, self._files, resolved.options, self._done
            )
        except ServingError as error:
            self._send(self.refuse(error))
        except Exception as error:
            log.exception("request %s failed", self._completion.request_id)
            self._send(self.refuse(fault(error)))

    def refuse(self, error: ServingError) -> Answer:
        """The answer to the request, which ends by `error`."""
        refund(self._resolved)
        response = self._of.refuse(self._scope, error)
        response.raw_headers.append(self._completion.id_header)
        self._completion.notify(response.status_code)
        return Answer.of(response)

    def cancel(self) -> None:
        """Drop the request, whose client has disconnected."""
        service = self._of.service
        self._answer = None
        if self._request is not None:
            service.dispatcher.drop(self._request)
        service.metrics.failed(self._resolved.model.name, CANCELLED)
        log.info("request %s: the client disconnected", self._completion.request_id)
        self._completion.notify(CLIENT_DISCONNECTED)

    def _done(self, found: BatchResult | Exception) -> None:
        self._request = None
        if isinstance(found, Exception):
            again = resolve_again(self._of.service, self._resolved, found)
            if again is not None:
                self._resolved = again
                self._submit()
                return
        if isinstance(found, ServingError):
            self._send(self.refuse(found))
            return
        if isinstance(found, Exception):
            log.error("request %s failed", self._completion.request_id, exc_info=found)
            self._send(self.refuse(fault(found)))
            return
        try:
            content, spent = classify.answer(
                self._of.service, self._scope, self._resolved, self._files, found, self._started
            )
            if self._of.hooks:
                note_answer(self._scope, found.predictions, spent)
        except Exception as error:
            log.exception("request %s failed", self._completion.request_id)
            self._send(self.refuse(fault(error)))
            return
        head = (
            f"server-timing: {classify.server_timing(spent)}\r\ncontent-length: {len(content)}\r\n"
            "content-type: application/json\r\n"
            f"x-request-id: {self._completion.request_id}\r\n"
        )
        if self._resolved.limited:
            head += LIMITED_LINE
        self._send(Answer(200, head.encode("ascii"), content))

    def _send(self, answer: Answer) -> None:
        send, self._answer = self._answer, None
        self._completion.notify(answer.status)
        if send is not None:
            send(answer)
