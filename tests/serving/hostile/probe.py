"""Sending one request to a monitored server: one answer, in time, and memory within bounds."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from serving.http.half_close import CONTINUE

# Generous: a shared machine may be busy. A file that gets past its limit costs minutes or more.
SECONDS = 10.0
MIB = 1 << 20


@dataclass(frozen=True)
class Watch:
    """A running server: a client of it, and its process id."""

    http: httpx.Client
    pid: int

    def resident(self) -> int:
        """The server's memory, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server is gone")

    def peak(self) -> int:
        """The most memory the server ever had, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server is gone")

    def send(self, name: str, path: str, headers: dict[str, str], body: bytes) -> int:
        """Post it and return the status, which must be 200, 4xx or 501 with one sentence, within SECONDS."""
        started = time.perf_counter()
        raw = [(key.encode(), value.encode()) for key, value in headers.items()]
        answer = self.http.post(path, content=body, headers=raw)
        took = time.perf_counter() - started
        assert took < SECONDS, f"{name}: {took:.1f} s"
        status = answer.status_code
        assert status == 200 or 400 <= status < 500 or status == 501, f"{name}: {status}"
        if status != 200:
            error = answer.json()["error"]
            assert error.endswith("."), name
            assert len(error) < 500, name
            assert ("code" in answer.json()) is not path.startswith("/v2"), name
        return status

    def speak(self, name: str, content: bytes) -> bytes:
        """Send `content` on a new connection and return what is received, at most one answer."""
        address = urlsplit(str(self.http.base_url))
        assert address.hostname is not None
        received = b""
        with socket.create_connection((address.hostname, address.port), timeout=SECONDS) as peer:
            try:
                peer.sendall(content)
                peer.shutdown(socket.SHUT_WR)
                while piece := peer.recv(65_536):
                    received += piece
            except TimeoutError:
                raise
            except OSError:
                pass  # The server has hung up: ECONNRESET, EPIPE or ENOTCONN, by how far it was.
        # Interim responses, if the answer took long.
        received = received.replace(CONTINUE, b"")
        assert received.count(b"HTTP/1.1 ") <= 1, name
        return received

    def is_healthy(self) -> bool:
        """Whether probes are answered."""
        return all(
            self.http.get(path, timeout=5).status_code == 200 for path in ("/livez", "/readyz")
        )
