"""A server on a real socket in a thread of the test process, so that tests can inspect its state."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from serving.api.app import create_app
from serving.http.server import server_config
from serving.service import Service
from serving.settings import Settings


@contextmanager
def live(settings: Settings, **options: Any) -> Iterator[tuple[int, Service]]:
    """The port of a running server, and its state; `options` are those of `create_app`."""
    app: FastAPI = create_app(settings, **options)
    server = uvicorn.Server(server_config(app, settings))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        try:
            yield listener.getsockname()[1], app.state.service
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
