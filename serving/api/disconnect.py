"""Noticing that a client has gone. An ASGI server tells only those who ask, which costs a task; ours tells
at no cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect, Request

# Among the extensions of a request's scope, where `serving.http.protocol` puts its `departure`.
EXTENSION = "offramp"
# Before a server that has none is asked, in seconds: most requests are answered sooner.
POLL_DELAY_S = 0.01


class DisconnectSignal:
    """A connection's side of it: tells whoever listens that the client has gone."""

    def __init__(self, resume: Callable[[], None]) -> None:
        """`resume` has the connection read again, should it have paused: it learns no other way."""
        self._resume = resume
        self._notify: Callable[[], None] | None = None
        self.gone = False

    def listen(self, notify: Callable[[], None] | None) -> None:
        """Call `notify` if the client goes from now on; None to hear of it no more."""
        self._notify = notify
        if notify is not None:
            self._resume()

    def happened(self) -> None:
        """The client has gone."""
        self.gone = True
        if self._notify is not None:
            self._notify()


class CancelOnDisconnect:
    """Around an await, after the body was read: cancels it when the client goes, which then raises
    ClientDisconnect."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        extension = request.scope.get("extensions", {}).get(EXTENSION, {})
        self._departure: DisconnectSignal | None = extension.get("departure")
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._departure is None:
            self._timer = asyncio.get_running_loop().call_later(POLL_DELAY_S, self._ask)
        elif self._departure.gone:
            raise ClientDisconnect
        else:
            self._departure.listen(self._leave)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._departure is not None:
            self._departure.listen(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # Whatever ends by an error holds on to its frames, and through them to this.
        task, self._task, self._watcher = self._task, None, None
        if self._gone and kind is asyncio.CancelledError:
            assert task is not None
            task.uncancel()
            raise ClientDisconnect from error

    def _ask(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        if self._task is not None:
            self._task.cancel()
