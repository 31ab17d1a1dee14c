"""An https server on loopback, with a certificate of a test authority."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import trustme


@dataclass
class Site:
    """The server's responses by path, and the paths that were requested.

    `declared` overrides the Content-Length of a body.
    """

    url: str
    bodies: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    declared: dict[str, int] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serving(authority: trustme.CA, identity: str) -> Iterator[Site]:
    """Serve a site with a certificate for `identity`, issued by `authority`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requested.append(self.path)
            path = self.path.split("?")[0]
            if path in site.redirects:
                self.send_response(302)
                self.send_header("Location", site.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = site.bodies.get(path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(site.declared.get(path, len(body or b""))))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(identity).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    site = Site(f"https://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
