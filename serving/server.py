"""Listening, and leaving in good order."""

from __future__ import annotations

import signal
import socket
from types import FrameType

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.announce import announcement
from serving.app import create_app
from serving.errors import InvalidRequestError, SettingsError
from serving.service import Service
from serving.settings import Settings

BACKLOG = 2048


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP, with the one answer that it gives by itself in the form of every error."""

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close the connection."""
        error = {"error": "The request is not valid HTTP.", "code": InvalidRequestError.code}
        body = orjson.dumps(error)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn that says when it listens, and for which SIGTERM is a normal end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening on `sockets`, then say so on stdout."""
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            print(announcement(host, port, list(self._service.models)), flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop being ready at once, then finish accepted requests; a second SIGINT does not wait.

        uvicorn would raise the signal again at the end, which makes it the exit status.
        """
        self._service.drain()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def run_server(settings: Settings) -> None:
    """Load, listen and serve until a signal comes.

    Raises SettingsError if the address cannot be had, and what loading raises, each in a sentence.
    """
    listener = _listen(settings.host, settings.port)
    with listener:
        app = create_app(settings)
        service: Service = app.state.service
        # Before uvicorn, which would bury the reason in a traceback.
        service.load()
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=Protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=settings.grace_seconds,
        )
        Server(config, service).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # Python appends the address, which the sentence has already.
        reason = (error.strerror or str(error)).split(" (")[0].lower()
        raise SettingsError(f"Cannot listen on {host}:{port}: {reason}.") from error
