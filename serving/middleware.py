"""What holds for every request, as plain ASGI: an id, a bounded body, and no fault without answer."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import InternalError, ServingError, TooLargeError

log = logging.getLogger("offramp.serving")
REQUEST_ID = "x-request-id"
# Bodies that hold settings are parsed on the event loop; no honest one comes near this.
SETTINGS, SMALL = "/v1/models/", 64 * 1024
USABLE_ID = re.compile(r"[\x21-\x7e]{1,128}")

# What nginx writes for a client that left before its answer.
CLIENT_LEFT = 499

Refuse = Callable[[Scope, ServingError], Response]
# Called once per request with its scope, id, status and seconds.
Finished = Callable[[Scope, str, int, float], None]


class RequestContext:
    """Gives every response its `X-Request-ID`, and answers an unexpected fault in the error form.

    The client's own id is echoed if it is printable ASCII of at most 128 characters. While `closing`
    says so, every answer asks for its connection to be closed. `finished` are told of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        refuse: Refuse,
        closing: Callable[[], bool],
        finished: Sequence[Finished],
    ) -> None:
        self.app = app
        self.refuse = refuse
        self.closing = closing
        self.finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        began = time.perf_counter()
        status = 0
        untold = list(self.finished)

        def tell() -> None:
            while untold:
                untold.pop()(scope, request_id, status or CLIENT_LEFT, time.perf_counter() - began)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                if self.closing():
                    headers["connection"] = "close"
            elif not message.get("more_body"):
                # Before it is sent, since a span ends with the last of the answer.
                tell()
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("request %s: the client left", request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if status:
                # The answer is half out: only breaking the connection tells the client.
                raise
            await self.refuse(scope, InternalError())(scope, receive, send_with_id)
        finally:
            tell()


class BodyLimit:
    """Makes reading a body of more than `limit` bytes raise TooLargeError, before or while it comes.

    Below /v1/models no body may have more than 64 KiB.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit
        self.small = min(limit, SMALL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.small if scope["path"].startswith(SETTINGS) else self.limit
        declared = Headers(scope=scope).get("content-length", "")
        announced = int(declared) if declared.isascii() and declared.isdigit() else 0
        received = 0

        async def counted() -> Message:
            nonlocal received
            if announced > limit:
                raise _too_large(limit)
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            return message

        await self.app(scope, counted, send)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The body is larger than the {limit} bytes allowed.")


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get(REQUEST_ID, "")
    return given if USABLE_ID.fullmatch(given) else uuid.uuid4().hex
