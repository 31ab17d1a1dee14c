"""Connections: how many there may be, and how slow a client may be, whatever it sends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Literal, cast

import orjson
from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from serving.api.disconnect import EXTENSION, DisconnectSignal
from serving.api.load_shedding import LoadShedder
from serving.errors import (
    HeadTooLargeError,
    InvalidRequestError,
    ServingError,
    SlowRequestError,
    TooManyConnectionsError,
)
from serving.http.coalescing import CoalescingTransport
from serving.http.upgrade import Parser
from serving.service import Service

# Request line and headers; also what may come with a body that is no body: chunk sizes and trailers,
# besides the eight bytes for each of its own that the smallest chunks take.
MAX_HEAD_BYTES = 64 * 1024
CHUNK_OVERHEAD_BYTES = 8
# Requests sent ahead of their answers on one connection.
MAX_PIPELINED = 32
# Bytes a second that a body must bring.
MIN_BODY_BYTES_PER_S = 1024
# How long the rest of a body is thrown away after an answer that did not wait for it, so that the
# client finds the answer before it finds the connection closed. In seconds.
LINGER_S = 2.0

# head: waiting for the rest of a request's head, or for a first request; body: for the rest of a body;
# answer: the request is whole; idle: answered, and nothing of the next request has come.
Phase = Literal["head", "body", "answer", "idle"]


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP with the limits that it has not, and errors in the form that every error has.

    `sweep` looks at every connection now and then, so that a request costs no timers.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = Parser(self)  # type: ignore[assignment]
        state = self.config.app.state  # type: ignore[union-attr]
        self._service: Service = state.service
        self._load_shedder: LoadShedder | None = getattr(state, "load_shedder", None)
        self._phase: Phase = "head"
        self._since = self._checked = self._moved = time.monotonic()
        # Of the request in hand: bytes of its head, of its body, and of neither.
        self._head = self._body = self._rest = 0
        self._body_before = 0
        self._unsent = 0
        self._running: RequestResponseCycle | None = None
        # Nothing more is answered; the connection closes with the rest of the body.
        self._leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._joined = CoalescingTransport(transport, self.loop, self._close_later)
        self.transport = self._joined  # type: ignore[assignment]
        if len(self.connections) > self._service.settings.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up()
        # uvicorn keeps its timer, and so everything, where the client broke the connection.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._phase == "idle":
            self._enter("head")
        phase, cycle, body = self._phase, self.cycle, self._body
        super().data_received(data)
        # Only of a request that has neither begun nor ended with these bytes: what that leaves out is
        # no more than one read from the socket.
        if self.transport.is_closing() or (self._phase, self.cycle) != (phase, cycle):
            return
        if phase == "head":
            self._head += len(data)
            if self._head > MAX_HEAD_BYTES:
                self._refuse(HeadTooLargeError(f"The head is larger than {MAX_HEAD_BYTES} bytes."))
        elif phase == "body":
            self._rest += len(data) - (self._body - body)
            if self._rest > MAX_HEAD_BYTES + CHUNK_OVERHEAD_BYTES * self._body:
                self._refuse(InvalidRequestError("The body's chunks or trailers are too large."))

    # What the parser finds, in the order it finds it. What it raises ends in send_400_response.

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests ahead of their answers")
        if self._leaving:
            raise ValueError("a request after the last one")
        self._enter("head")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # After the head these are trailers, which nobody reads.
        if self._phase == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._enter("body")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if cast(Parser, self.parser).ends_early():
            return
        self._enter("idle" if self.cycle is None or self.cycle.response_complete else "answer")
        super().on_message_complete()
        if self._leaving:
            self._joined.close_now()

    def on_response_complete(self) -> None:
        if self._phase == "answer" and not self.pipeline:
            self._enter("idle")
        elif self._phase == "body":
            # The rest is not waited for longer than LINGER_S, see `overdue`.
            self._since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close the connection."""
        self._refuse(InvalidRequestError("The request is not valid HTTP."))

    def check(self, now: float) -> None:
        """End the connection if its client keeps it waiting for too long; `now` is monotonic."""
        settings = self._service.settings
        if self._stuck(now, settings.body_timeout_seconds):
            self.transport.abort()
        elif self.transport.is_closing() or self._kept_waiting():
            self._since = self._checked = now
            self._body_before = self._body
        elif self._phase == "head" and now - self._since > settings.header_timeout_seconds:
            # A client that has sent nothing is not told anything either.
            if self._head:
                self._refuse(SlowRequestError("The request's head did not come in time."))
            else:
                self.transport.close()
        elif self._phase == "body":
            self._check_body(now, settings.body_timeout_seconds)
        elif self._phase == "idle" and now - self._since > settings.keep_alive_seconds:
            # uvicorn's timer is gone if the answer came before the request had ended.
            self.transport.close()

    def _kept_waiting(self) -> bool:
        """Whether it is this server that lets the client wait, with an earlier request or this one."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        paused = self.flow.read_paused or self.cycle.waiting_for_100_continue
        return self._phase == "head" or paused

    def _check_body(self, now: float, span: float) -> None:
        if self.cycle.response_complete:
            if now - self._since > LINGER_S:
                self._joined.close_now()
        elif now - self._checked > span:
            if self._body - self._body_before < MIN_BODY_BYTES_PER_S * span:
                self._refuse(SlowRequestError("The request's body did not come in time."))
            self._checked, self._body_before = now, self._body

    def _stuck(self, now: float, span: float) -> bool:
        """Whether there is something to send of which the client has taken nothing for `span`."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        return unsent > 0 and now - self._moved > span

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self._checked = time.monotonic()
        if phase == "head":
            self._head = 0
        elif phase == "body":
            self._body = self._body_before = self._rest = 0

    def _make_room(self) -> None:
        """Close the connection that has been idle for longest; refuse this one if none is."""
        idle = [
            other
            for other in self.connections
            if isinstance(other, Protocol)
            and other._phase == "idle"
            and not other.transport.is_closing()
        ]
        if idle:
            min(idle, key=lambda other: other._since).transport.close()
            return
        self.connections.discard(self)
        self._refuse(
            TooManyConnectionsError("The server has as many connections as it allows; try again.")
        )

    def _refuse(self, error: ServingError) -> None:
        """Close the connection, after `error` unless an earlier request is still to be answered, or this
        one is already."""
        self._service.metrics.rejected(error.code)
        cycle = self.cycle
        if self._phase == "body" and cycle is not None and cycle.scope is self.scope:
            due = not self.pipeline and not cycle.response_started
        else:
            # The request in hand has no cycle: this is one of before.
            due = cycle is None or cycle.response_complete
        if due:
            self.transport.write(_answer(error))
        self._give_up()
        self._joined.close_now()

    def _close_later(self) -> bool:
        """Whether a client still sends the body of a request that is answered: closed before it has ended,
        the connection breaks, and many a client then never reads the answer."""
        self._leaving = self._phase == "body" and self.cycle.response_complete
        return self._leaving

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # A client that does not read its answers waits until it has.
        if self._load_shedder is not None and not self.flow.write_paused:
            refusal = self._load_shedder.refusal(cast(Scope, cycle.scope))
            if refusal is not None:
                self._turn_away(cycle, refusal)
                return
        self._running = cycle
        self._departure = DisconnectSignal(self.flow.resume_reading)
        cycle.scope["extensions"] = {EXTENSION: {"departure": self._departure}}
        super()._start_asgi_task(cycle, app)

    def _turn_away(self, cycle: RequestResponseCycle, refusal: Response) -> None:
        """Answer a request as its cycle would, but without a task."""
        cycle.keep_alive &= self._service.phase != "draining"
        headers = [*cycle.default_headers, *refusal.raw_headers]
        if not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        self.transport.write(_written(refusal.status_code, headers, bytes(refusal.body)))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    def _give_up(self) -> None:
        """Tell whatever works on a request at once, so that it sends nothing more.

        With requests ahead of their answers it is not the newest one, the only one that uvicorn tells.
        """
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            self._departure.happened()


async def sweep(connections: Iterable[Any], every: float) -> None:
    """Check the connections in `connections` about every `every` seconds, until cancelled."""
    while True:
        await asyncio.sleep(every)
        now = time.monotonic()
        for connection in list(connections):
            connection.check(now)


def _answer(error: ServingError) -> bytes:
    body = orjson.dumps({"error": str(error), "code": error.code})
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **error.headers,
    }
    lines = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    return _written(error.status, lines, body)


def _written(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = [name + b": " + value + b"\r\n" for name, value in headers]
    return b"".join([STATUS_LINE[status], *lines, b"\r\n", body])
