"""What holds for every request, as plain ASGI: an id, an answer to every fault, a bounded body."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.asgi.completion import Completion, CompletionHook
from serving.api.asgi.headers import header
from serving.api.asgi.refusals import Refuse
from serving.api.asgi.unpacking import Unpacker, unpacker
from serving.connection import Uploads, disconnect_signal
from serving.errors import InternalError, OutOfMemoryError, ServingError, TooLargeError

log = logging.getLogger("offramp.serving")
# The status in logs of a request whose client disconnected before the answer, as in nginx.
CLIENT_DISCONNECTED = 499
# The limit of bodies without images, such as policies. Their parsers need not be safe for larger ones.
MAX_SMALL_BODY_BYTES = 64 * 1024
WITH_IMAGES = re.compile(r"/v1/(classify(/.*)?|preprocess)|/v2/models/.*/infer")


class RequestContext:
    """Adds `X-Request-ID` to every response, answers unexpected faults, and calls the completion hooks.

    The client's own id is used if it is printable ASCII of at most 128 characters. While `closing` returns
    True, every answer closes its connection. So does the answer to a request that the server below refuses.
    """

    def __init__(
        self,
        app: ASGIApp,
        refuse: Refuse,
        closing: Callable[[], bool],
        hooks: Sequence[CompletionHook],
    ) -> None:
        self._app = app
        self._refuse = refuse
        self._closing = closing
        self._hooks = hooks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        completion = Completion(self._hooks, scope, time.perf_counter())
        scope.setdefault("state", {})["request_id"] = completion.request_id
        signal = disconnect_signal(scope)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], completion.id_header]
                if self._closing() or (signal is not None and signal.refused):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            elif not message.get("more_body"):
                # Before the last part is sent, because a trace's span ends with it.
                completion.notify(status)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("request %s: the client disconnected", completion.request_id)
        except Exception as error:
            log.exception("request %s failed", completion.request_id)
            if status:
                # Part of the answer was sent: the client notices only a broken connection.
                raise
            await self._refuse(scope, fault(error))(scope, receive, send_with_id)
        finally:
            completion.notify(status or CLIENT_DISCONNECTED)


class BodyLimit:
    """Unpacks bodies, and makes reading one of more than `limit` bytes raise TooLargeError, at the latest at
    that byte of the packed or the unpacked body.

    For routes without images the limit is MAX_SMALL_BODY_BYTES, for paths in `own_limits` what that says.
    Reading a body of an unknown encoding raises UnsupportedEncodingError, and one that the server below
    refuses, what it was refused for. Bodies are counted in `uploads` until they have arrived, except those of
    `own_limits`, which are not kept in memory.
    """

    def __init__(
        self, app: ASGIApp, limit: int, own_limits: Mapping[str, int], uploads: Uploads
    ) -> None:
        self._app = app
        self._limit = limit
        self._own_limits = own_limits
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = header(scope, b"content-length")
        declared = int(length) if length.isdigit() else 0
        encoding = header(scope, b"content-encoding")
        unpacking: Unpacker | None = None
        signal = disconnect_signal(scope)
        received = held = 0
        limit = self._limit
        in_memory = scope["path"] not in self._own_limits
        if not in_memory:
            limit = self._own_limits[scope["path"]]
        elif not WITH_IMAGES.fullmatch(scope["path"]):
            limit = min(limit, MAX_SMALL_BODY_BYTES)

        async def counted() -> Message:
            nonlocal received, held, unpacking
            if declared > limit:
                raise _too_large(limit)
            if encoding and unpacking is None:
                unpacking = unpacker(encoding, limit)
            message = await receive()
            if signal is not None and signal.refusal is not None:
                raise signal.take_refusal()
            body = message.get("body", b"")
            received += len(body)
            if received > limit:
                raise _too_large(limit)
            if in_memory:
                held += len(body)
                self._uploads.hold(len(body))
                if not message.get("more_body", False):
                    self._uploads.release(held)
                    held = 0
            if unpacking is not None and message["type"] == "http.request":
                last = not message.get("more_body", False)
                message = {**message, "body": unpacking.feed(body, last=last)}
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._uploads.release(held)


def fault(error: Exception) -> ServingError:
    """What the client of a request is answered that failed by the unexpected `error`."""
    return OutOfMemoryError() if isinstance(error, MemoryError) else InternalError()


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The body is larger than the {limit} bytes allowed.")
