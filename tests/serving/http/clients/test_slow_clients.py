"""Slow, silent and greedy clients of a real server, next to honest ones."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import SERVE, Server, started
from tests.serving.http.load import load
from tests.serving.http.raw import (
    GET,
    assert_refused,
    connected,
    dribble,
    post,
    read_all,
    slow_reader,
    whole_answer,
)

# Other tests may run at the same time: a delay of a second changes no result.
TIMEOUT = 1.5
MAX_CLOSING_S = 4.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Iterator[Server]:
    """A server that waits for a head or for progress for TIMEOUT."""
    settings = {
        "header_timeout_seconds": TIMEOUT,
        "body_timeout_seconds": TIMEOUT,
        "max_body_bytes": 200_000,
        "workers": 1,
    }
    place = tmp_path_factory.mktemp("server")
    with started([*SERVE, str(bundle_path)], place, settings) as server:
        yield server


def assert_serving(server: Server) -> None:
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_head_that_does_not_arrive_in_time_is_refused(server: Server) -> None:
    with connected(server) as connection:
        began = time.monotonic()
        answer = dribble(connection, GET * 3, 0.1)
        assert_refused(answer, 408, "request_timeout")
        assert TIMEOUT <= time.monotonic() - began < MAX_CLOSING_S


def test_a_second_head_on_a_connection_is_held_to_the_same_time(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(GET)
        assert whole_answer(connection).status == 200
        assert_refused(dribble(connection, GET * 3, 0.1), 408, "request_timeout")


@pytest.mark.parametrize("said", [b"", b"\r\n"])
def test_a_connection_without_a_request_is_closed(server: Server, said: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(said)
        began = time.monotonic()
        read_all(connection)
        assert time.monotonic() - began < MAX_CLOSING_S


def test_a_body_without_progress_is_refused(server: Server, pngs: list[bytes]) -> None:
    with connected(server) as connection:
        connection.sendall(post(b"", len(pngs[0])))
        assert_refused(dribble(connection, pngs[0], 0.2), 408, "request_timeout")


def test_a_slow_body_that_makes_progress_is_answered(server: Server, pngs: list[bytes]) -> None:
    body = pngs[0] + b"\0" * 18_000  # decoders stop at the image's end
    with connected(server) as connection:
        connection.sendall(post(b"", len(body)))
        began = time.monotonic()
        for start in range(0, len(body), 500):
            connection.sendall(body[start : start + 500])
            time.sleep(0.12)
        assert time.monotonic() - began > 2 * TIMEOUT
        assert whole_answer(connection).status == 200


def test_slow_clients_do_not_delay_fast_ones(server: Server, pngs: list[bytes]) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(server)) for _ in range(100)]
        for number, connection in enumerate(slow):
            connection.sendall(GET[:-4] if number % 2 else post(b"", 1000))
        with load(server.address, pngs, lambda *_: True, connections=4) as clients:
            clients.wait_for(300)
        assert clients.wrong == []
        for connection in slow:
            assert_refused(read_all(connection), 408, "request_timeout")


def test_a_head_without_end_is_refused(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x" * 10_000)
        with contextlib.suppress(ConnectionError):
            assert_refused(read_all(connection), 431, "head_too_large")
    assert_serving(server)


@pytest.mark.parametrize("junk", [b"X-Trailer: %s\r\n" % (b"x" * 1000), b"X: y\r\n"])
def test_trailers_without_end_are_refused(server: Server, junk: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n"
        )
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50_000_000:
                connection.sendall(junk * 100)
                sent += len(junk) * 100
        assert sent < 50_000_000
    assert_serving(server)


def test_the_rest_of_a_refused_body_is_not_waited_for(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(post(b"", 10_000_000))
        assert whole_answer(connection).status == 413
        began = time.monotonic()
        dribble(connection, b"x" * 1000, 0.1)
        assert time.monotonic() - began < 10


def test_a_client_that_sends_a_large_body_and_closes_reads_the_refusal(server: Server) -> None:
    with connected(server) as connection:
        whole = post(bytes(11 << 20), 11 << 20)
        connection.sendall(whole.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        assert_refused(read_all(connection), 413, "too_large")


def test_requests_ahead_of_their_answers_are_bounded(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(GET * 20)
        found = b""
        while found.count(b"ok\n") < 20:
            found += connection.recv(65536)
        connection.sendall(GET * 5000)
        with contextlib.suppress(ConnectionError):
            read_all(connection)
    assert_serving(server)


def test_a_client_that_reads_nothing_is_disconnected(server: Server) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end = time.monotonic() + 30
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                connection.sendall(ask)
                time.sleep(0.005)
        assert time.monotonic() < end
    assert_serving(server)


def test_a_client_that_reads_slowly_receives_everything(server: Server) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    size = len(httpx.get(f"{server.url}/openapi.json").content)
    got = 0
    for part in slow_reader(server, 3 * (ask % b"") + ask % b"Connection: close\r\n"):
        got += len(part)
        time.sleep(0.015)
    assert got > 4 * size


@pytest.mark.parametrize(
    "content",
    [
        b"nonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(server: Server, content: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(content)
        assert_refused(read_all(connection), 400, "invalid_request")


def test_refusals_of_connections_are_counted_and_not_logged(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        read_all(connection)
    shown = httpx.get(f"{server.url}/metrics").text
    assert 'offramp_rejected_total{reason="invalid_request"}' in shown
    assert 'offramp_rejected_total{reason="request_timeout"}' in shown
    # Only the banner; what other tests sent may look like drift.
    printed = [line for line in server.printed if "drift of" not in line]
    assert len(printed) == 4, "".join(printed)
