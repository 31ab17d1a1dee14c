"""A connection: how its requests are answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

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
from serving.errors import ServingError
from serving.http.coalescing import CoalescingTransport
from serving.http.responses import send_whole


@dataclass(slots=True)
class Running:
    """The newest request that was begun, None before the first one. While it is unanswered there is also what
    notices that its client has disconnected: the request itself if no task answers it, or a signal."""

    cycle: RequestResponseCycle | None = None
    direct: DirectRequest | None = None
    signal: DisconnectSignal | None = None

    def cancel(self) -> None:
        """Stop the work at once, for the client has disconnected.

        With pipelined requests it is not the newest one, which is the only one that uvicorn notifies.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if self.direct is not None:
            direct, self.direct = self.direct, None
            direct.cancel()
        elif self.signal is not None:
            self.signal.notify()

    def refuse(self, error: ServingError) -> Answer | None:
        """Answer `error` to the request, whose body has not arrived. Returns the answer, or None if the task
        will send it."""
        assert self.cycle is not None
        self.cycle.keep_alive = False
        if self.direct is not None:
            direct, self.direct = self.direct, None
            return direct.refuse(error)
        if self.signal is not None:
            self.signal.refuse(error)
        self.cycle.message_event.set()
        return None


class AnsweringProtocol(HttpToolsProtocol):
    """uvicorn's protocol with load shedding, requests that are answered without a task, disconnect signals
    and coalesced writes."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hooks: ServerHooks = self.config.app.state.server_hooks  # type: ignore[union-attr]
        self._running = Running()
        # What is counted as an upload, of the running request's body.
        self._held_bytes = 0
        # What is wrong with the request that is being read, if it is HTTP.
        self._error: ServingError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._coalescing = CoalescingTransport(transport, self.loop, self._close_later)
        self.transport = self._coalescing  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._running.cancel()
        self._drop_bodies()
        # After an error uvicorn keeps its timer, which keeps the connection alive.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if not self._is_direct():
            return
        # uvicorn pauses until the application has taken what has arrived. The head limits this body.
        self.flow.resume_reading()
        self._held_bytes += len(body)
        try:
            self._hooks.uploads.hold(len(body))
        except ServingError as error:
            self._error = error
            raise

    def _close_later(self) -> bool:
        """Whether to keep an answered connection open for now."""
        return False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope, running = cast(Scope, cycle.scope), self._running
        # While the client does not read its answers, requests go through the application, which waits.
        if not self.flow.write_paused:
            if self._hooks.direct is not None:
                running.direct = self._hooks.direct(scope)
                if running.direct is not None:
                    running.cycle, running.signal = cycle, None
                    if not cycle.more_body:
                        self._start_direct()
                    return
            if self._hooks.shed is not None and (refusal := self._hooks.shed(scope)) is not None:
                self._send(cycle, Answer.of(refusal))
                return
        running.cycle, running.signal = cycle, DisconnectSignal(self.flow.resume_reading)
        scope["extensions"] = {EXTENSION: {DISCONNECT: running.signal}}
        super()._start_asgi_task(cycle, app)

    def _leave_out_newest(self) -> bool:
        """Forget the newest request, if it waits for an earlier answer. Returns whether it does."""
        if not self.pipeline or self.pipeline[0][0] is not self.cycle:
            return False
        self.pipeline.popleft()
        before = self.pipeline[0][0] if self.pipeline else self._running.cycle
        assert before is not None
        self.cycle = before
        return True

    def _is_direct(self) -> bool:
        """Whether the request that is being read is running, and is answered without a task."""
        return self._running.direct is not None and self._running.cycle is self.cycle

    def _start_direct(self) -> None:
        """Start to answer the running request, which has arrived, without a task."""
        # A connection that has paused reading notices no disconnect.
        self.flow.resume_reading()
        cycle, direct = self._running.cycle, self._running.direct
        assert cycle is not None
        assert direct is not None
        # The connection keeps the cycle until its next request.
        body, cycle.body = bytes(cycle.body), bytearray()
        self._release()
        direct.start(body, self._answer_direct)

    def _answer_direct(self, answer: Answer) -> None:
        self._running.direct = None
        assert self._running.cycle is not None
        self._send(self._running.cycle, answer)

    def _send(self, cycle: RequestResponseCycle, answer: Answer) -> None:
        send_whole(cycle, self._coalescing, answer, closing=self._hooks.draining())

    def _drop_bodies(self) -> None:
        """Free what has arrived of bodies: a connection is freed only by the garbage collector, which seldom
        runs."""
        self._release()
        for cycle in (self._running.cycle, self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None:
                cycle.body = bytearray()

    def _release(self) -> None:
        """The running request's body is no upload any more."""
        self._hooks.uploads.release(self._held_bytes)
        self._held_bytes = 0
