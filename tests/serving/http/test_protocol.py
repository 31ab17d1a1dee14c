"""Slow, silent and greedy clients of a real server, beside honest ones."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import SERVE, Server, started
from tests.serving.http.test_sigterm import post, read_all
from tests.serving.load import load

# What is held to seconds needs the machine.
pytestmark = pytest.mark.serial
TIMEOUT = 1.0
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path) -> Iterator[Server]:
    """A server that waits for a head or for progress for one second."""
    settings = {
        "header_timeout_seconds": TIMEOUT,
        "body_timeout_seconds": TIMEOUT,
        "max_body_bytes": 200_000,
        "workers": 1,
    }
    place = tmp_path_factory.mktemp("server")
    with started([*SERVE, str(bundle_path)], place, settings) as server:
        yield server


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=20) as connection:
        yield connection


def dribble(connection: socket.socket, content: bytes, pause: float) -> bytes:
    """Send `content` byte by byte until the server closes; what it said."""
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


def assert_serving(server: Server) -> None:
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_head_that_does_not_come_in_time_is_refused(server: Server) -> None:
    with connected(server) as connection:
        began = time.monotonic()
        answer = dribble(connection, GET * 3, 0.1)
        assert_refused(answer, 408, "request_timeout")
        assert TIMEOUT <= time.monotonic() - began < 4 * TIMEOUT


def test_a_second_head_on_a_connection_is_held_to_the_same_time(server: Server) -> None:
    with connected(server) as connection:
        connection.sendall(GET)
        assert whole_answer(connection).status == 200
        assert_refused(dribble(connection, GET * 3, 0.1), 408, "request_timeout")


@pytest.mark.parametrize("said", [b"", b"\r\n"])
def test_a_connection_that_asks_nothing_is_closed(server: Server, said: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(said)
        began = time.monotonic()
        read_all(connection)
        assert time.monotonic() - began < 4 * TIMEOUT


def test_a_body_without_progress_is_refused(server: Server, pngs: list[bytes]) -> None:
    with connected(server) as connection:
        connection.sendall(post(b"", len(pngs[0])))
        assert_refused(dribble(connection, pngs[0], 0.2), 408, "request_timeout")


def test_a_slow_body_that_makes_progress_is_answered(server: Server, pngs: list[bytes]) -> None:
    body = pngs[0] + b"\0" * 12_000  # decoders stop at the picture's end
    with connected(server) as connection:
        connection.sendall(post(b"", len(body)))
        began = time.monotonic()
        for start in range(0, len(body), 500):
            connection.sendall(body[start : start + 500])
            time.sleep(0.12)
        assert time.monotonic() - began > 2 * TIMEOUT
        assert whole_answer(connection).status == 200


def test_slow_clients_hold_up_no_fast_ones(server: Server, pngs: list[bytes]) -> None:
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


def test_who_sends_a_large_body_and_wants_to_close_reads_the_refusal(server: Server) -> None:
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


def test_a_client_that_reads_nothing_is_cut_off(server: Server) -> None:
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


def slow_reader(server: Server, content: bytes) -> Iterator[bytes]:
    """What comes for `content`, little by little, through a small window."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        connection.settimeout(20)
        connection.connect(server.address)
        connection.sendall(content)
        while part := connection.recv(2048):
            yield part


def test_a_client_that_reads_slowly_gets_all_from_the_beginning(server: Server) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    size = len(httpx.get(f"{server.url}/openapi.json").content)
    got = 0
    for part in slow_reader(server, 3 * (ask % b"") + ask % b"Connection: close\r\n"):
        got += len(part)
        time.sleep(0.015)
    assert got > 4 * size


def test_a_connection_whose_body_came_after_its_answer_is_not_kept_for_ever(
    tmp_path: Path, bundle_path: Path
) -> None:
    with started([*SERVE, str(bundle_path)], tmp_path, {"keep_alive_seconds": 1}) as server:
        for late in (False, True):
            with connected(server) as connection:
                whole = post(b"x" * 10, 10).replace(b"/v1/classify", b"/v1/nowhere")
                connection.sendall(whole[:-10] if late else whole)
                assert whole_answer(connection).status == 404
                began = time.monotonic()
                connection.sendall(whole[-10:] if late else b"")
                assert connection.recv(1) == b""
                assert 0.5 < time.monotonic() - began < 4


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
    # Only what `serve` says at its start.
    assert len(server.printed) == 4, "".join(server.printed)


def test_past_the_cap_a_connection_is_refused_until_one_is_free(
    tmp_path: Path, bundle_path: Path
) -> None:
    settings = {"max_connections": 4, "header_timeout_seconds": 30}
    with (
        started([*SERVE, str(bundle_path)], tmp_path, settings) as server,
        contextlib.ExitStack() as stack,
    ):
        busy = [stack.enter_context(connected(server)) for _ in range(4)]
        for connection in busy:
            connection.sendall(GET[:-4])
        time.sleep(0.3)
        with connected(server) as one_more:
            answer = read_all(one_more)
            assert_refused(answer, 503, "too_many_connections")
            assert b"retry-after: 1" in answer.lower()
        # Those that are in use are served on.
        busy[0].sendall(b"\r\n\r\n")
        assert whole_answer(busy[0]).status == 200
        # That one is idle now, and makes room.
        with connected(server) as one_more:
            one_more.sendall(GET)
            assert whole_answer(one_more).status == 200
            assert busy[0].recv(1) == b""


def test_an_idle_connection_with_unread_answers_makes_room_but_once(
    tmp_path: Path, bundle_path: Path
) -> None:
    with (
        started([*SERVE, str(bundle_path)], tmp_path, {"max_connections": 4}) as server,
        contextlib.ExitStack() as stack,
    ):
        reading = slow_reader(server, 2 * b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        next(reading)
        time.sleep(0.3)
        others = []
        for _ in range(12):
            others.append(stack.enter_context(connected(server)))
            others[-1].sendall(GET)
            assert whole_answer(others[-1]).status == 200
        for connection in others[:-4]:
            connection.settimeout(5)
            assert connection.recv(1) == b""
        reading.close()
