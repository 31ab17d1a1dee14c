"""The proxy with its configuration before servers that only count requests, without root or names."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from tests.debian import require
from tests.deploy.hosts import ROOT, free_port, process

CONFIG = ROOT / "docker" / "proxy" / "haproxy.cfg"


@dataclass
class Backend:
    """A server that answers 200 with an empty body. Paths whose last part is in `statuses` get that status:
    0 closes the connection without an answer, -1 keeps it open without one."""

    port: int
    received: list[str] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)

    def count(self, path: str) -> int:
        """How often `path` was requested."""
        return self.received.count(path)


@contextlib.contextmanager
def backend(**statuses: int) -> Iterator[Backend]:
    """A `Backend` on a free port."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version: ClassVar[str] = "HTTP/1.1"

        def answer(self) -> None:
            if self.path == "/readyz":
                status = 200
            else:
                # Before the body is read, so that a test sees when a request begins to arrive.
                found.received.append(self.path)
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = found.statuses.get(self.path.rpartition("/")[2], 200)
            if status <= 0:
                self.close_connection = True
                if status < 0:
                    over.wait()
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def log_message(self, *arguments: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Backend(server.server_port, statuses=dict(statuses))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def proxy(
    place: Path, servers: Sequence[Backend], changes: Mapping[str, str] | None = None
) -> Iterator[int]:
    """HAProxy before `servers`; yields its port. `changes` are texts of the configuration and what replaces
    them, so that tests need not wait for its time limits."""
    port = free_port()
    text = CONFIG.read_text("utf-8")
    for old, new in {":8080": f"127.0.0.1:{port}", **(changes or {})}.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    lines = "".join(f"    server s{s.port} 127.0.0.1:{s.port}\n" for s in servers)
    text, replaced = re.subn(r" *server-template .*\n", lines, text)
    assert replaced == 1
    config = place / "haproxy.cfg"
    config.write_text(text, "utf-8")
    log = place / "haproxy.log"
    with process([require("haproxy", "haproxy"), "-db", "-f", config], log) as started:
        end = time.monotonic() + 20
        while not _listens(port):
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield port


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
