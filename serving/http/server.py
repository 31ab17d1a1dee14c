"""Listening, and leaving in good order."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from types import FrameType

import uvicorn

from serving.api.app import create_app
from serving.http.banner import announcement
from serving.http.listener import BACKLOG, listen, stop_accepting
from serving.http.protocol import Protocol, sweep
from serving.memory import fix_mmap_threshold, freeze_gc
from serving.service import Service
from serving.settings import Settings

# Files besides connections: bundles, logs, libraries.
SPARE_FILES = 256
# Longer than a handshake that has begun takes to end, in seconds.
ACCEPT_S = 0.2
log = logging.getLogger("offramp.serving")


class Server(uvicorn.Server):
    """uvicorn that says when it listens, and for which SIGTERM is a normal end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._sweeping: asyncio.Task[None] | None = None
        self._interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening on `sockets`, then say so on stdout."""
        await super().startup(sockets)
        settings = self._service.settings
        shortest = min(settings.header_timeout_seconds, settings.body_timeout_seconds)
        every = min(max(shortest / 4, 0.05), 1.0)
        self._sweeping = asyncio.create_task(sweep(self.server_state.connections, every))
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            print(announcement(host, port, list(self._service.models)), flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take new connections a little longer, then finish what was accepted.

        A balancer takes its time to look away; meanwhile every answer asks for its connection to be
        closed. Then no connection begins any more, and those that have are accepted before listening ends.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._service.settings.drain_seconds
        while loop.time() < end and not self._interrupted:
            await asyncio.sleep(0.05)
        for listener in sockets or []:
            stop_accepting(listener)
        await asyncio.sleep(ACCEPT_S)
        await super().shutdown(sockets)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop being ready at once, then finish accepted requests; a second SIGINT does not wait.

        uvicorn would raise the signal again at the end, which makes it the exit status.
        """
        self._service.drain()
        # At a keyboard nobody has a balancer.
        self._interrupted |= sig == signal.SIGINT
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def run_server(settings: Settings) -> None:
    """Load, listen and serve until a signal comes.

    Raises SettingsError if the address cannot be had, and what loading raises, each in a sentence.
    """
    fix_mmap_threshold()
    listener = listen(settings.host, settings.port)
    with listener:
        app = create_app(settings)
        service: Service = app.state.service
        # Before uvicorn, which would bury the reason in a traceback.
        service.load()
        freeze_gc()
        _allow_files(settings.max_connections + SPARE_FILES)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            # Below: what clients send that is no HTTP, which is answered and counted.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=max(1, settings.grace_seconds - int(settings.drain_seconds)),
        )
        Server(config, service).run(sockets=[listener])


def _allow_files(wanted: int) -> None:
    """Raise the process's limit of open files to `wanted`, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "the system allows %d open files; lower max_connections or raise its limit to %d",
            allowed,
            wanted,
        )
