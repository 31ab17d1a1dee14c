"""Stopping a real server under load: accepted requests are answered."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
from PIL import Image

from tests.servers import SERVE, started
from tests.serving.conftest import encode
from tests.serving.http.load import load
from tests.serving.http.raw import (
    post,
    read_all,
)


def connects(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return False
    return True


def test_sigterm_under_load_loses_no_request(
    tmp_path: Path, bundle_path: Path, pngs: list[bytes]
) -> None:
    command = [*SERVE, str(bundle_path)]
    with (
        started(command, tmp_path, {"workers": 2, "drain_seconds": 2}) as server,
        load(server.address, pngs, lambda *_: True, connections=8) as clients,
        socket.create_connection(server.address) as uploading,
        httpx.Client(base_url=server.url) as prober,
    ):
        clients.wait_for(200)
        # Accepted, and half of its body not sent yet.
        uploading.sendall(post(pngs[0][:50], len(pngs[0])))
        time.sleep(0.2)
        before = clients.answered
        server.process.terminate()
        end = time.monotonic() + 5
        while (probe := prober.get("/readyz")).status_code == 200:
            assert time.monotonic() < end
        assert probe.json()["code"] == "draining"
        assert probe.headers["Connection"] == "close"
        # Connections are accepted for `drain_seconds`: a balancer may not have noticed yet.
        with socket.create_connection(server.address) as late:
            late.sendall(post(pngs[1]))
            answer = read_all(late)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in answer.lower()
        end = time.monotonic() + 5
        while connects(server.address):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert server.process.poll() is None
        uploading.sendall(pngs[0][50:])
        assert read_all(uploading).startswith(b"HTTP/1.1 200")
        assert server.process.wait(10) == 0
    assert clients.wrong == []
    assert clients.answered > before


def test_a_stream_in_progress_is_finished(tmp_path: Path, bundle_path: Path) -> None:
    large = encode(Image.new("RGB", (2000, 2000), "orange"))
    files = [("files", (f"{i}.png", large, "image/png")) for i in range(12)]
    settings = {"workers": 1, "drain_seconds": 0}
    with (
        started([*SERVE, str(bundle_path)], tmp_path, settings) as server,
        httpx.stream("POST", f"{server.url}/v1/classify/stream", files=files, timeout=60) as events,
    ):
        assert events.status_code == 200
        lines = events.iter_lines()
        assert next(lines) == "event: exit"
        server.process.terminate()
        events = [line for line in lines if line.startswith("event: ")]
        assert events[-2:] == ["event: answer", "event: done"]
        assert len(events) >= 12
        assert server.process.wait(20) == 0


def test_after_the_grace_period_the_server_exits_regardless(
    tmp_path: Path, bundle_path: Path, pngs: list[bytes]
) -> None:
    settings = {"drain_seconds": 0, "grace_seconds": 1, "body_timeout_seconds": 60}
    with (
        started([*SERVE, str(bundle_path)], tmp_path, settings) as server,
        socket.create_connection(server.address) as never,
    ):
        never.sendall(post(pngs[0][:50], len(pngs[0])))
        time.sleep(0.3)
        started_at = time.monotonic()
        assert server.terminate(within=10) == 0
        assert time.monotonic() - started_at < 5
