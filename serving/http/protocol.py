"""A connection: HTTP/1.1 with limits on what a client may send, and how slowly."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal, cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.connection import (
    DISCONNECT,
    EXTENSION,
    Answer,
    DirectRequest,
    DisconnectSignal,
    ServerHooks,
)
from serving.errors import InvalidRequestError, ServingError, SlowRequestError
from serving.http.body_progress import BodyProgress
from serving.http.coalescing import CoalescingTransport
from serving.http.connection_cap import close_longest_idle, too_many_connections
from serving.http.half_close import HalfCloseProbe
from serving.http.head import MAX_HEAD_BYTES, check_head, head_too_large
from serving.http.responses import error_response, send_whole
from serving.http.slow_reader import Reader
from serving.http.upgrade import Parser

# Requests that wait on one connection for the answer to an earlier one.
MAX_PIPELINED = 32
# How long the rest of a body is read and discarded after an early answer. Closing at once would reset the
# connection, and many clients would then never read the answer.
LINGER_S = 2.0

# head: reading a request's head, or waiting for the first request. body: reading a body. answer: the request
# was read and is being answered. idle: answered, and no byte of the next request has arrived.
Phase = Literal["head", "body", "answer", "idle"]


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with limits, load shedding, disconnect signals, and errors in Offramp's JSON form.

    Timeouts are enforced by `sweep` in server.py, which calls `check` of every connection: a request needs
    no timers.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = Parser(self)  # type: ignore[assignment]
        self._hooks: ServerHooks = self.config.app.state.server_hooks  # type: ignore[union-attr]
        self._phase: Phase = "head"
        self._phase_began = time.monotonic()
        self._reader = Reader(self._phase_began)
        # Of the current request.
        self._head_bytes = 0
        self._body = BodyProgress()
        # The request that is being answered, and what notices that its client has disconnected: the request
        # itself if no task answers it, or a signal.
        self._running: RequestResponseCycle | None = None
        self._direct: DirectRequest | None = None
        self._signal: DisconnectSignal | None = None
        # Whether the connection closes at the end of the current body, and answers nothing more.
        self._closing_after_body = False
        # What is wrong with the head that is being read, if it is HTTP.
        self._head_error: ServingError | None = None
        # Once the client has ended its side of the connection.
        self._probe: HalfCloseProbe | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._coalescing = CoalescingTransport(transport, self.loop, self._close_later)
        self.transport = self._coalescing  # type: ignore[assignment]
        if len(self.connections) > self._hooks.settings.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._notify_disconnect()
        if self._probe is not None:
            self._probe.stop()
        # After an error uvicorn keeps its timer, which keeps the connection alive.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._phase == "idle":
            self._enter("head")
        phase, cycle, body_bytes = self._phase, self.cycle, self._body.body_bytes
        super().data_received(data)
        # Only bytes that neither begin nor end a request are counted here; `check_head` counts whole heads.
        if self.transport.is_closing() or (self._phase, self.cycle) != (phase, cycle):
            return
        if phase == "head":
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(head_too_large())
        elif phase == "body":
            self._body.framing_bytes += len(data) - (self._body.body_bytes - body_bytes)
            if self._body.has_too_much_framing:
                self._refuse(InvalidRequestError("The body's chunks or trailers are too large."))

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more. Returns whether the connection stays open: until all answers to
        whole requests were sent."""
        if self._phase != "answer":
            return False
        self.cycle.keep_alive = False
        self._probe = HalfCloseProbe(self.loop, self.transport, lambda: self._running)
        return True

    # Callbacks of the parser, in order. What they raise ends in send_400_response.

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many pipelined requests")
        if self._closing_after_body:
            raise ValueError("a request after the last one")
        self._enter("head")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Headers after the head are trailers, which are ignored.
        if self._phase != "head":
            return
        # As in uvicorn, without a second call for each header.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        try:
            check_head(parser.get_method(), self.url, parser.get_http_version(), self.headers)
        except ServingError as error:
            self._head_error = error
            raise
        earlier = self.cycle
        self._enter("body")
        try:
            super().on_headers_complete()
        finally:
            if self.cycle is earlier:
                # The target is not valid, so there is no request whose body could follow.
                self._enter("head")

    def on_body(self, body: bytes) -> None:
        self._body.body_bytes += len(body)
        super().on_body(body)
        if self._direct is not None and self._running is self.cycle:
            # uvicorn pauses until the application has taken what has arrived. The head limits this body.
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        if cast(Parser, self.parser).ends_early():
            return
        self._enter("idle" if self.cycle is None or self.cycle.response_complete else "answer")
        super().on_message_complete()
        if self._closing_after_body:
            self._coalescing.close_now()
        elif self._direct is not None and self._running is self.cycle:
            self._start_direct(self.cycle, self._direct)

    def on_response_complete(self) -> None:
        if self._phase == "answer" and not self.pipeline:
            self._enter("idle")
        elif self._phase == "body":
            # `check` closes the connection LINGER_S from now.
            self._phase_began = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP or has a wrong head, and close the connection."""
        self._refuse(self._head_error or InvalidRequestError("The request is not valid HTTP."))

    def check(self, now: float) -> None:
        """End the connection if its client is too slow; `now` is monotonic."""
        settings = self._hooks.settings
        unsent = self.transport.get_write_buffer_size()
        if self._reader.has_stopped(unsent, now, settings.body_timeout_seconds):
            self.transport.abort()
        elif self.transport.is_closing() or self._waits_for_server():
            self._phase_began = now
            self._body.excuse(now)
        elif self._phase == "head" and now - self._phase_began > settings.header_timeout_seconds:
            # A client that has sent nothing gets no answer.
            if self._head_bytes:
                self._refuse(SlowRequestError("The request's head did not arrive in time."))
            else:
                self.transport.close()
        elif self._phase == "body":
            self._check_body(now, settings.body_timeout_seconds)
        elif self._phase == "idle" and now - self._phase_began > settings.keep_alive_seconds:
            # uvicorn sets no timer if the answer was sent before the request had ended.
            self.transport.close()

    def _waits_for_server(self) -> bool:
        """Whether the client waits for the server: for an earlier answer, or to send its body."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        paused = self.flow.read_paused or self.cycle.waiting_for_100_continue
        return self._phase == "head" or paused

    def _check_body(self, now: float, timeout: float) -> None:
        if self.cycle.response_complete:
            if now - self._phase_began > LINGER_S:
                self._coalescing.close_now()
        elif self._body.is_too_slow(now, timeout):
            self._refuse(SlowRequestError("The request's body did not arrive in time."))

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._phase_began = time.monotonic()
        if phase == "head":
            self._head_bytes = 0
        elif phase == "body":
            self._body.begin(self._phase_began)

    @property
    def idle_since(self) -> float | None:
        """Since when the connection has been idle; None if it is not."""
        idle = self._phase == "idle" and not self.transport.is_closing()
        return self._phase_began if idle else None

    def _make_room(self) -> None:
        """Close another connection, or this one if none is idle."""
        if not close_longest_idle(c for c in self.connections if isinstance(c, Protocol)):
            self.connections.discard(self)
            self._refuse(too_many_connections())

    def _refuse(self, error: ServingError) -> None:
        """Answer `error`, unless an earlier request is unanswered or this one is answered, and close."""
        self._hooks.rejected(error.code)
        cycle = self.cycle
        if self._phase == "body" and cycle is not None and cycle.scope is self.scope:
            unanswered = not self.pipeline and not cycle.response_started
        else:
            # The current request has no cycle yet: this is an earlier one.
            unanswered = cycle is None or cycle.response_complete
        if unanswered:
            self.transport.write(error_response(error))
        self._notify_disconnect()
        self._coalescing.close_now()

    def _close_later(self) -> bool:
        """Whether to keep an answered connection open: its client still sends a body (LINGER_S)."""
        self._closing_after_body = self._phase == "body" and self.cycle.response_complete
        return self._closing_after_body

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = cast(Scope, cycle.scope)
        # While the client does not read its answers, requests go through the application, which waits.
        if not self.flow.write_paused:
            if self._hooks.direct is not None:
                self._direct = self._hooks.direct(scope)
                if self._direct is not None:
                    self._running, self._signal = cycle, None
                    if not cycle.more_body:
                        self._start_direct(cycle, self._direct)
                    return
            if self._hooks.shed is not None and (refusal := self._hooks.shed(scope)) is not None:
                self._send(cycle, Answer.of(refusal))
                return
        self._running = cycle
        self._signal = DisconnectSignal(self.flow.resume_reading)
        scope["extensions"] = {EXTENSION: {DISCONNECT: self._signal}}
        super()._start_asgi_task(cycle, app)

    def _start_direct(self, cycle: RequestResponseCycle, direct: DirectRequest) -> None:
        """Start to answer a request that has arrived, without a task."""
        # A connection that has paused reading notices no disconnect.
        self.flow.resume_reading()
        # The connection keeps the cycle until its next request.
        body, cycle.body = bytes(cycle.body), bytearray()
        direct.start(body, self._answer_direct)

    def _answer_direct(self, answer: Answer) -> None:
        self._direct = None
        assert self._running is not None
        self._send(self._running, answer)

    def _send(self, cycle: RequestResponseCycle, answer: Answer) -> None:
        send_whole(cycle, self._coalescing, answer, closing=self._hooks.draining())

    def _notify_disconnect(self) -> None:
        """Stop the work on the running request at once.

        With pipelined requests it is not the newest one, which is the only one that uvicorn notifies.
        """
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            if self._direct is not None:
                direct, self._direct = self._direct, None
                direct.cancel()
            elif self._signal is not None:
                self._signal.notify()
