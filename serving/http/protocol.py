"""A connection: HTTP/1.1 with limits on what a client may send, and how slowly."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar, Literal, cast

from serving.errors import InvalidRequestError, ServingError, SlowRequestError
from serving.http.answering import AnsweringProtocol
from serving.http.body_progress import BodyProgress
from serving.http.connection_cap import (
    MAX_REFUSED,
    SILENT_S,
    close_longest_idle,
    too_many_connections,
)
from serving.http.half_close import HalfCloseProbe
from serving.http.head import MAX_HEAD_BYTES, check_head, head_too_large
from serving.http.responses import error_response
from serving.http.slow_reader import Reader
from serving.http.upgrade import Parser

# Requests that wait on one connection for the answer to an earlier one.
MAX_PIPELINED = 32
# How long what a client sends is read and discarded after an early answer or an error. Closing at once would
# reset the connection, and many clients would then never read the answer.
LINGER_S = 2.0

# head: reading a request's head, or waiting for the first request. body: reading a body. answer: the request
# was read and is being answered. idle: answered, and no byte of the next request has arrived.
Phase = Literal["head", "body", "answer", "idle"]


class Protocol(AnsweringProtocol):
    """uvicorn's protocol with limits, and errors in Offramp's JSON form.

    Timeouts are enforced by `sweep` in server.py, which calls `check` of every connection: a request needs
    no timers.
    """

    # Beyond the limit of connections, and open until their clients have read why.
    _refused: ClassVar[set[Protocol]] = set()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = Parser(self)  # type: ignore[assignment]
        self._phase: Phase = "head"
        self._phase_began = time.monotonic()
        self._reader = Reader(self._phase_began)
        # Of the current request.
        self._head_bytes = 0
        self._body = BodyProgress()
        # Whether the connection closes at the end of the current body, and answers nothing more.
        self._closing_after_body = False
        # After an error: what the client sends is discarded. The error, while earlier requests are
        # unanswered; then what closes the connection.
        self._deaf = False
        self._discarded_bytes = 0
        self._refusal: ServingError | None = None
        self._closing: asyncio.TimerHandle | None = None
        # Once the client has ended its side of the connection.
        self._probe: HalfCloseProbe | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._hooks.settings.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._refused.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        if self._probe is not None:
            self._probe.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deaf:
            self._discarded_bytes += len(data)
            # The rest of a body fits.
            if self._discarded_bytes > self._hooks.settings.max_body_bytes:
                self._running.cancel()
                self._coalescing.close_now()
            return
        if self._phase == "idle":
            self._enter("head")
        phase, cycle, body_bytes = self._phase, self.cycle, self._body.body_bytes
        super().data_received(data)
        # Only bytes that neither begin nor end a request are counted here; `check_head` counts whole heads.
        ended = self._deaf or self.transport.is_closing()
        if ended or (self._phase, self.cycle) != (phase, cycle):
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
        if self._closing is not None:
            return False
        self._leave_out_unread()
        if self._phase != "answer":
            return False
        if self._refusal is None:
            self.cycle.keep_alive = False
        self._probe = HalfCloseProbe(self.loop, self.transport, lambda: self._running.cycle)
        return True

    # Callbacks of the parser, in order. What they raise ends in send_400_response.

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._error = InvalidRequestError(
                f"At most {MAX_PIPELINED} requests may wait for the answer to an earlier one."
            )
            raise self._error
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
            self._error = error
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

    def on_message_complete(self) -> None:
        if cast(Parser, self.parser).ends_early():
            return
        self._enter("idle" if self.cycle is None or self.cycle.response_complete else "answer")
        super().on_message_complete()
        if self._closing_after_body:
            self._coalescing.close_now()
        elif self._is_direct():
            self._start_direct()

    def on_response_complete(self) -> None:
        if self._phase == "answer" and not self.pipeline:
            self._enter("idle")
        elif self._phase == "body":
            # `check` closes the connection LINGER_S from now.
            self._phase_began = time.monotonic()
        super().on_response_complete()
        answered = self.cycle.response_complete and not self.transport.is_closing()
        if self._refusal is not None and answered:
            refusal, self._refusal = self._refusal, None
            self._end(refusal)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or wrong, and close the connection."""
        self._refuse(self._error or InvalidRequestError("The request is not valid HTTP."))

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
        """Since when the connection has been idle, or has sent nothing; None if it is in use."""
        silent = self._phase == "head" and self.cycle is None and self._head_bytes == 0
        idle = self._phase == "idle" or (silent and time.monotonic() - self._phase_began > SILENT_S)
        return self._phase_began if idle and not self.transport.is_closing() else None

    def _make_room(self) -> None:
        """Close another connection, or refuse this one if none is idle."""
        others = (c for c in self.connections if isinstance(c, Protocol) and c is not self)
        if not close_longest_idle(others):
            self.connections.discard(self)
            self._refuse(too_many_connections())
            if len(self._refused) >= MAX_REFUSED:
                self._coalescing.close_now()
            self._refused.add(self)

    def _refuse(self, error: ServingError) -> None:
        """Answer `error` to the request that is being read, after the answers to earlier ones, and close.
        What the client sends from now on is discarded."""
        again, self._deaf = self._deaf, True
        self._leave_out_unread()
        if self._phase == "answer":
            self._refusal = error
        elif self._phase == "body":
            self._refuse_running(error, again=again)
        else:
            self._end(error)

    def _leave_out_unread(self) -> None:
        """If earlier requests are unanswered, go on as if nothing had followed them."""
        if self._phase == "body" and not self._leave_out_newest():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._enter("answer")

    def _refuse_running(self, error: ServingError, *, again: bool) -> None:
        """Answer `error` to the running request, whose body has not arrived, unless it is answered. `again`
        if its task has not answered a first time."""
        if self.cycle.response_complete:
            self._close_in(LINGER_S)
            return
        if self.cycle.response_started or again:
            self._hooks.rejected(error.code)
            self._running.cancel()
            self._coalescing.close_now()
            return
        self._drop_bodies()
        answer = self._running.refuse(error)
        if answer is not None:
            self._send(self.cycle, answer)

    def _end(self, error: ServingError) -> None:
        """Answer `error`, which belongs to no request, and close the connection."""
        self._hooks.rejected(error.code)
        self._enter("answer")
        self.flow.resume_reading()
        self._coalescing.write_last(error_response(error))
        # A client that is too slow has nothing on its way that would reset the connection.
        self._close_in(0 if isinstance(error, SlowRequestError) else LINGER_S)

    def _close_in(self, seconds: float) -> None:
        if self._closing is None:
            self._closing = self.loop.call_later(seconds, self._coalescing.close_now)

    def _close_later(self) -> bool:
        """Whether to keep an answered connection open: its client still sends a body (LINGER_S)."""
        self._closing_after_body = self._phase == "body" and self.cycle.response_complete
        if self._closing_after_body and self._deaf:
            self._close_in(LINGER_S)
        return self._closing_after_body
