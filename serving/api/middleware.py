"""What holds for every request, as plain ASGI: an id, a bounded body, and no fault without answer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from random import getrandbits

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import InternalError, ServingError, TooLargeError

log = logging.getLogger("offramp.serving")
REQUEST_ID = b"x-request-id"
USABLE_ID = re.compile(rb"[\x21-\x7e]{1,128}")

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
        name = request_id(scope)
        began = time.perf_counter()
        status = 0
        pending_hooks = list(self.finished)

        def notify() -> None:
            while pending_hooks:
                pending_hooks.pop()(scope, name, status or CLIENT_LEFT, time.perf_counter() - began)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (REQUEST_ID, name.encode("ascii"))]
                if self.closing():
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            elif not message.get("more_body"):
                # Before it is sent, since a span ends with the last of the answer.
                notify()
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("request %s: the client left", name)
        except Exception:
            log.exception("request %s failed", name)
            if status:
                # The answer is half out: only breaking the connection tells the client.
                raise
            await self.refuse(scope, InternalError())(scope, receive, send_with_id)
        finally:
            notify()


# Bodies without images: policies and the like. Whoever parses them need not fear their size.
MAX_SMALL_BODY_BYTES = 64 * 1024
WITH_IMAGES = re.compile(r"/v1/classify(/.*)?|/v2/models/.*/infer")


class BodyLimit:
    """Makes reading a body of more than `limit` bytes raise TooLargeError, before or while it comes.

    Where no images are taken the limit is `MAX_SMALL_BODY_BYTES`.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _header(scope, b"content-length")
        announced = int(declared) if declared.isdigit() else 0
        received = 0
        limit = self.limit
        if not WITH_IMAGES.fullmatch(scope["path"]):
            limit = min(limit, MAX_SMALL_BODY_BYTES)

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


def request_id(scope: Scope) -> str:
    """The id that the answer to the request of `scope` carries: the client's own, or a new one."""
    given = _header(scope, REQUEST_ID)
    # Told apart by anybody, guarded by nobody: no need for the system's randomness.
    return given.decode("ascii") if USABLE_ID.fullmatch(given) else f"{getrandbits(128):032x}"


def _header(scope: Scope, name: bytes) -> bytes:
    """The value of the header `name`, in lower case; empty without it."""
    return next((value for key, value in scope["headers"] if key == name), b"")
