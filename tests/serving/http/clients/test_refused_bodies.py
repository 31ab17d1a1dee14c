"""Requests that are refused while their body arrives are answered, logged and counted like any other."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import SERVE, Server, started
from tests.serving.http.events import STREAM
from tests.serving.http.raw import connected, read_all

CLASSIFY, INFER = "/v1/classify", "/v2/models/tiny/infer"
ID = "mine"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Iterator[Server]:
    settings = {"body_timeout_seconds": 0.5, "access_log": "true"}
    place = tmp_path_factory.mktemp("server")
    with started([*SERVE, str(bundle_path)], place, settings) as server:
        yield server


def head(path: str, kind: str, framing: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"X-Request-ID: {ID}\r\n{framing}\r\n\r\n"
    ).encode()


def logged(server: Server) -> dict[str, Any]:
    """The next line of the access log."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for number, line in enumerate(server.printed):
            if line.startswith("{"):
                del server.printed[number]
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(0.01)
    raise AssertionError("nothing was logged")


def count(server: Server, name: str, label: str) -> float:
    shown = httpx.get(f"{server.url}/metrics").text
    return sum(map(float, re.findall(rf"^{name}{{[^}}]*{label}[^}}]*}} (\S+)$", shown, re.M)))


CASES = [
    (CLASSIFY, "image/png"),
    (CLASSIFY, "application/json"),
    (CLASSIFY, "multipart/form-data; boundary=x"),
    (STREAM, "image/png"),
    (INFER, "application/json"),
    ("/v1/preprocess", "image/png"),
]


@pytest.mark.parametrize(("path", "kind"), CASES)
@pytest.mark.parametrize(
    ("framing", "body", "status", "code"),
    [
        ("Content-Length: 100", b"--x\r\n", 408, "request_timeout"),
        ("Transfer-Encoding: chunked", b"nonsense\r\n", 400, "invalid_request"),
    ],
)
def test_one_is_refused_once_and_by_its_id(
    server: Server, path: str, kind: str, framing: str, body: bytes, status: int, code: str
) -> None:
    counted = [("offramp_rejected_total", f'reason="{code}"')]
    if path != "/v1/preprocess":
        counted.append(("offramp_requests_total", f'outcome="{code}"'))
    before = [count(server, *names) for names in counted]
    with connected(server) as connection:
        connection.sendall(head(path, kind, framing) + body)
        answer = read_all(connection)
    top, _, content = answer.partition(b"\r\n\r\n")
    assert top.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"\r\nx-request-id: {ID}".encode() in top
    assert b"\r\nconnection: close" in top
    # The Open Inference Protocol has no code.
    assert json.loads(content).get("code") == (None if path == INFER else code)
    line = logged(server)
    assert (line["request_id"], line["status"], line["code"]) == (ID, status, code)
    assert [count(server, *names) for names in counted] == [one + 1 for one in before]
