"""A web server of files on loopback, with or without TLS."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme


@dataclass
class FileServer:
    """What a server answers by path, and the paths it was asked for.

    `lengths` replaces the Content-Length of a path; None leaves the header out.
    """

    url: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    lengths: dict[str, int | None] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def file_server(
    authority: trustme.CA | None = None, identity: str = "127.0.0.1"
) -> Iterator[FileServer]:
    """A server over TLS with a certificate of `authority` for `identity`, or over plain HTTP."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.requests.append(self.path)
            path = self.path.split("?")[0]
            if path in files.redirects:
                self.send_response(302)
                self.send_header("Location", files.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = files.bodies.get(path)
            self.send_response(404 if body is None else 200)
            length = files.lengths.get(path, len(body or b""))
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(identity).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    scheme = "http" if authority is None else "https"
    files = FileServer(f"{scheme}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def trust(authority: trustme.CA, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust certificates of `authority` alone; its own is written to `directory`."""
    authority.cert_pem.write_to_path(directory / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
