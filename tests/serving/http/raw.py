"""Raw HTTP over sockets: slow, silent and greedy clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator

from tests.servers import Server

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body: bytes, length: int | None = None) -> bytes:
    """A request to classify, as bytes."""
    head = (
        "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def read_all(connection: socket.socket) -> bytes:
    """All bytes until the server closes the connection."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=20) as connection:
        yield connection


def dribble(connection: socket.socket, content: bytes, pause: float) -> bytes:
    """Send `content` byte by byte until the server closes the connection; return its answer."""
    with contextlib.suppress(ConnectionError):
        for byte in content:
            connection.sendall(bytes([byte]))
            time.sleep(pause)
    with contextlib.suppress(ConnectionError):
        return read_all(connection)
    return b""


def assert_refused(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"connection: close" in head.lower()
    assert json.loads(body)["code"] == code
    assert json.loads(body)["error"].endswith(".")


def whole_answer(connection: socket.socket) -> http.client.HTTPResponse:
    """The next answer on `connection`, read to its end."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer


def slow_reader(server: Server, content: bytes) -> Iterator[bytes]:
    """The answer to `content` in small parts, read through a small TCP window."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        connection.settimeout(20)
        connection.connect(server.address)
        connection.sendall(content)
        while part := connection.recv(2048):
            yield part
