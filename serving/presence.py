"""Noticing that a client has gone. An ASGI server tells only those who ask."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect
from starlette.types import Receive

# Asking costs a task. A request that is answered sooner than this is not worth one.
PATIENCE = 0.01


class Presence:
    """Around an await, after the body was read: cancels it when the client goes, which then raises
    ClientDisconnect."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._timer = loop.call_later(PATIENCE, self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and kind is asyncio.CancelledError:
            assert self._task is not None
            self._task.uncancel()
            raise ClientDisconnect from error

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        assert self._task is not None
        self._task.cancel()
