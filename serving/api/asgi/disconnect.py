"""Cancelling work when its client disconnects.

ASGI reports a disconnect only to an application that waits for it, which costs a task per request. Offramp's
own server puts a `DisconnectSignal` into the scope instead, which costs nothing.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect, Request

from serving.connection import disconnect_signal

# With another server, how long to wait before a task polls `receive`: most requests are answered sooner.
POLL_DELAY_S = 0.01


class CancelOnDisconnect:
    """Cancels the block when the client disconnects, and then raises ClientDisconnect.

    To be entered once the body was read.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._signal = disconnect_signal(request.scope)
        self._timer: asyncio.TimerHandle | None = None
        self._poll_task: asyncio.Task[None] | None = None
        self._disconnected = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._signal is None:
            self._timer = asyncio.get_running_loop().call_later(POLL_DELAY_S, self._start_polling)
        elif self._signal.disconnected:
            raise ClientDisconnect
        else:
            self._signal.listen(self._cancel)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._signal is not None:
            self._signal.listen(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._poll_task is not None:
            self._poll_task.cancel()
        # A task that ends by an error keeps its frames alive, and through them this object.
        task, self._task, self._poll_task = self._task, None, None
        if self._disconnected and kind is asyncio.CancelledError:
            assert task is not None
            task.uncancel()
            raise ClientDisconnect from error

    def _start_polling(self) -> None:
        self._poll_task = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel()

    def _cancel(self) -> None:
        self._disconnected = True
        if self._task is not None:
            self._task.cancel()
