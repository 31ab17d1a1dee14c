"""What the proxy passes on, what it repeats, how long it waits, and how it refuses."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
import yaml

from serving.settings import Settings
from tests.debian import require
from tests.deploy.hosts import ROOT
from tests.deploy.proxy import CONFIG, Backend, backend, proxy
from tests.deploy.test_files import run

BUFFERED_BODY_BYTES = 256 * 1024
# Buffers that one connection can fill: see the configuration.
BUFFERS_PER_CONNECTION = 4
BYTES = {"m": 2**20, "g": 2**30}


@pytest.fixture(scope="module")
def server() -> Iterator[Backend]:
    with backend(lost=0, late=504, silent=-1) as found:
        yield found


@pytest.fixture(scope="module")
def port(server: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with proxy(tmp_path_factory.mktemp("proxy"), [server]) as found:
        yield found


@pytest.fixture(scope="module")
def hasty(server: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A proxy with limits of time that tests can wait for."""
    changes = {
        "timeout http-request 10s": "timeout http-request 1s",
        "timeout server 60s": "timeout server 1s",
        "wait-for-body time 5m": "wait-for-body time 4s",
    }
    with proxy(tmp_path_factory.mktemp("hasty"), [server], changes) as found:
        yield found


def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[HTTPResponse, bytes]:
    """The answer of the proxy, and its body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def refusal(answer: HTTPResponse, content: bytes) -> tuple[int, str]:
    """Status and code of a refusal, which has the form of the server's."""
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    found = json.loads(content)
    assert found["error"].endswith(".")
    return answer.status, found["code"]


def head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: proxy\r\nContent-Length: {length}\r\n\r\n".encode()


def send_slowly(port: int, parts: list[bytes], pause_s: float) -> tuple[HTTPResponse, bytes]:
    """Send `parts` with pauses between them; the answer and its body."""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        for part in parts:
            client.sendall(part)
            time.sleep(pause_s)
        answer = HTTPResponse(client, method="POST")
        answer.begin()
        return answer, answer.read()


def test_the_configuration_is_valid() -> None:
    run(require("haproxy", "haproxy"), "-c", "-f", CONFIG)


def test_buffers_of_all_connections_fit_into_the_containers_memory() -> None:
    numbers = {
        name: int(value)
        for name, value in re.findall(
            r"^ +(maxconn|tune\.bufsize) (\d+)$", CONFIG.read_text(), re.M
        )
    }
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    limit = compose["services"]["proxy"]["deploy"]["resources"]["limits"]["memory"]
    needed = numbers["maxconn"] * BUFFERS_PER_CONNECTION * numbers["tune.bufsize"]
    assert needed <= 0.9 * int(limit[:-1]) * BYTES[limit[-1]]
    assert numbers["maxconn"] < Settings.model_fields["max_connections"].default


def test_streams_of_http_2_cannot_exceed_the_connections(port: int) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    answer, _ = send_slowly(port, [preface], 0)
    assert answer.status == 400


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/livez", "/readyz", "/page/main.js", "/v1/models", "/v1/models/m/policy"),
        *(
            "/v1/classify?model=m",
            "/%76%31/models",
            "/v2",
            "/v2/health/ready",
            "/v2/models/m/infer",
        ),
    ],
)
def test_the_api_and_the_page_are_public(port: int, path: str) -> None:
    assert ask(port, "GET", path)[0].status == 200


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/metrics",
            "/metrics?x",
            "/%6detrics",
            "/%6Detrics",
            "/m%65trics/",
            "http://host/metrics",
        ),
        *("//metrics", "/./metrics", "/x/../metrics", "/metrics%zz", "/metrics%00"),
        *("/docs", "/d%6fcs", "/openapi.json", "/openapi%2ejson", "/offramp/metrics"),
        *("/v2/repository/index", "/v2/%72epository/index", "/v2%2frepository/index"),
        *("/v1/models/m/canary", "/v1/models/m/c%61nary", "/v1/models/m/canary/promote"),
        *("/v1/models/m%2fcanary", "/%761/models/%6d/canary"),
    ],
)
def test_admin_routes_and_metrics_are_not_public_however_they_are_written(
    port: int, path: str
) -> None:
    for method in ("GET", "POST"):
        assert refusal(*ask(port, method, path)) == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_nothing_is_changed_from_the_network(port: int, method: str) -> None:
    assert refusal(*ask(port, method, "/v1/models/m")) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "size", "repeated"),
    [
        ("/v1/classify/lost", 10, True),
        ("/v1/classify/full/lost", BUFFERED_BODY_BYTES, True),
        ("/v1/classify/large/lost", 3 * BUFFERED_BODY_BYTES, False),
        ("/v1/jobs/lost", 10, False),
        ("/v1/%6aobs/lost", 10, False),
    ],
)
def test_requests_whose_server_ends_are_repeated_from_the_buffer_but_no_jobs(
    port: int, server: Backend, path: str, size: int, repeated: bool
) -> None:
    assert refusal(*ask(port, "POST", path, b"x" * size)) == (502, "server_lost")
    assert (server.count(path) > 1) == repeated


@pytest.mark.serial
def test_a_server_that_does_not_answer_is_reported(hasty: int) -> None:
    assert refusal(*ask(hasty, "POST", "/v1/jobs/silent")) == (504, "server_silent")


def test_errors_that_clients_can_provoke_keep_a_server_in_service(port: int) -> None:
    assert {ask(port, "POST", "/v1/classify/late")[0].status for _ in range(20)} == {504}
    assert ask(port, "POST", "/v1/classify")[0].status == 200


def test_without_a_server_the_client_is_told_when_to_try_again(tmp_path: Path) -> None:
    with proxy(tmp_path, []) as alone:
        answer, content = ask(alone, "GET", "/v1/models")
        assert refusal(answer, content) == (503, "not_ready")
        assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.serial
def test_a_head_must_arrive_in_time(hasty: int) -> None:
    answer, _ = send_slowly(hasty, [b"GET /v1/models HTTP/1.1\r\n", b"Host: proxy\r\n"], 0.6)
    assert answer.status == 408


@pytest.mark.serial
@pytest.mark.parametrize("size", [1000, BUFFERED_BODY_BYTES, 3 * BUFFERED_BODY_BYTES])
def test_a_body_may_take_longer_than_a_head(hasty: int, size: int) -> None:
    """Of every size: those that are repeated and those that are too large for it."""
    quarter = b"x" * (size // 4)
    parts = [head("/v1/classify", 4 * len(quarter)), *[quarter] * 4]
    answer, _ = send_slowly(hasty, parts, 0.4)
    assert answer.status == 200


def test_only_bodies_that_fit_into_the_buffer_are_waited_for(port: int, server: Backend) -> None:
    small, large = BUFFERED_BODY_BYTES, BUFFERED_BODY_BYTES + 1
    with ExitStack() as stack:
        for size in (small, large):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            client.sendall(head(f"/v1/classify/{size}", size) + b"x" * 1000)
        end = time.monotonic() + 20
        while not server.count(f"/v1/classify/{large}"):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert not server.count(f"/v1/classify/{small}")


@pytest.mark.serial
def test_a_body_that_never_ends_is_refused(hasty: int) -> None:
    parts = [head("/v1/classify", 10), b"x"]
    assert refusal(*send_slowly(hasty, parts, 0)) == (408, "request_timeout")
