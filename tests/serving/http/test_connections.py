"""The cap on connections, and how long an idle one stays open."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from serving.http.connection_cap import SILENT_S
from tests.servers import SERVE, started
from tests.serving.http.raw import (
    GET,
    assert_refused,
    connected,
    post,
    read_all,
    slow_reader,
    whole_answer,
)


def test_a_connection_whose_body_came_after_its_answer_is_closed_when_idle(
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
        # Connections in use are still served.
        busy[0].sendall(b"\r\n\r\n")
        assert whole_answer(busy[0]).status == 200
        # That connection is idle now, and is closed for a new one.
        with connected(server) as one_more:
            one_more.sendall(GET)
            assert whole_answer(one_more).status == 200
            assert busy[0].recv(1) == b""


def test_a_refused_connection_is_not_reset_by_what_its_client_sends(
    tmp_path: Path, bundle_path: Path
) -> None:
    settings = {"max_connections": 1, "header_timeout_seconds": 30}
    with (
        started([*SERVE, str(bundle_path)], tmp_path, settings) as server,
        connected(server) as busy,
    ):
        busy.sendall(GET[:-4])
        time.sleep(0.3)
        for _ in range(10):
            with connected(server) as refused:
                # As clients do that read an answer only once their request is sent.
                time.sleep(0.1)
                refused.sendall(post(bytes(1 << 20)))
                refused.sendall(bytes(100))
                assert_refused(read_all(refused), 503, "too_many_connections")


def test_connections_that_send_nothing_make_room_the_longest_silent_first(
    tmp_path: Path, bundle_path: Path
) -> None:
    settings = {"max_connections": 4, "header_timeout_seconds": 30}
    with (
        started([*SERVE, str(bundle_path)], tmp_path, settings) as server,
        contextlib.ExitStack() as stack,
    ):
        silent = []
        for _ in range(4):
            silent.append(stack.enter_context(connected(server)))
            time.sleep(0.1)
        with connected(server) as too_soon:
            assert_refused(read_all(too_soon), 503, "too_many_connections")
        time.sleep(SILENT_S)
        with connected(server) as one_more:
            one_more.sendall(GET)
            assert whole_answer(one_more).status == 200
            assert silent[0].recv(1) == b""
            # The others are served.
            silent[1].sendall(GET)
            assert whole_answer(silent[1]).status == 200


def test_an_idle_connection_with_unread_answers_is_closed_for_one_new_connection_only(
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
