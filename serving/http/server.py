"""uvicorn's server with slow clients ended, and a shutdown that loses no request."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from types import FrameType
from typing import Any

import uvicorn

from serving.http.listener import BACKLOG, stop_accepting
from serving.http.protocol import Protocol
from serving.settings import Settings

# Longer than a TCP handshake that has begun takes to end.
ACCEPT_S = 0.2
# How often connections are checked for slow clients: a quarter of the shortest timeout, within these bounds.
MIN_SWEEP_S = 0.05
MAX_SWEEP_S = 1.0


def server_config(app: Any, settings: Settings) -> uvicorn.Config:
    """uvicorn's configuration for `app`, with Offramp's protocol."""
    app.state.server_hooks.in_use = True
    return uvicorn.Config(
        app,
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        # Warnings would be of malformed requests, which are answered and counted.
        log_level="error",
        access_log=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=max(1, settings.grace_seconds - int(settings.drain_seconds)),
    )


class Server(uvicorn.Server):
    """Calls `started` with host and port once it listens, `reload` at SIGHUP, and `drain` at the first
    signal to stop.

    After SIGTERM the exit code is 0.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        settings: Settings,
        *,
        started: Callable[[str, int], None],
        drain: Callable[[], None],
        reload: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        self._settings = settings
        self._on_started = started
        self._drain = drain
        self._reload = reload
        self._reload_task: asyncio.Future[None] | None = None
        self._sweep_task: asyncio.Task[None] | None = None
        self._interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on `sockets`."""
        await super().startup(sockets)
        # Where there is no such signal there is nothing to handle.
        if hangup := getattr(signal, "SIGHUP", None):
            asyncio.get_running_loop().add_signal_handler(hangup, self._start_reload)
        settings = self._settings
        shortest = min(settings.header_timeout_seconds, settings.body_timeout_seconds)
        every = min(max(shortest / 4, MIN_SWEEP_S), MAX_SWEEP_S)
        self._sweep_task = asyncio.create_task(sweep(self.server_state.connections, every))
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._on_started(host, port)

    def _start_reload(self) -> None:
        """Reload, unless that is going on already."""
        if self._reload_task is None or self._reload_task.done():
            self._reload_task = asyncio.ensure_future(self._reload())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept new connections for `drain_seconds`, then finish what was accepted.

        A load balancer needs that long to notice that the server is not ready. Meanwhile every answer
        closes its connection. Then no connection can begin, and those that have begun are accepted
        before listening ends.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._settings.drain_seconds
        while loop.time() < end and not self._interrupted:
            await asyncio.sleep(0.05)
        for listener in sockets or []:
            stop_accepting(listener)
        await asyncio.sleep(ACCEPT_S)
        await super().shutdown(sockets)
        if self._sweep_task is not None:
            self._sweep_task.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, then finish accepted requests; a second SIGINT does not wait for them.

        uvicorn would raise the signal again at the end, which makes it the exit status.
        """
        self._drain()
        # SIGINT comes from a keyboard: there is no load balancer to wait for.
        self._interrupted |= sig == signal.SIGINT
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


async def sweep(connections: Iterable[Any], every: float) -> None:
    """Check each of `connections` about every `every` seconds, until cancelled."""
    while True:
        await asyncio.sleep(every)
        now = time.monotonic()
        for connection in list(connections):
            connection.check(now)
