"""A client that has ended its side of the connection gets the answers to its whole requests."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time

import pytest

from serving.http.half_close import CONTINUE, PROBE_S
from serving.service import Service
from tests.serving.http.raw import GET, post, read_all
from tests.serving.stages import hold, until

STREAM = b"/v1/classify/stream?threshold=2"


def half_closed(port: int, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)
    return connection


def test_it_gets_its_answer(server: tuple[int, Service], pngs: list[bytes]) -> None:
    with half_closed(server[0], post(pngs[0])) as connection:
        answer = read_all(connection).replace(CONTINUE, b"")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"}")


def test_it_gets_every_pipelined_answer(server: tuple[int, Service], pngs: list[bytes]) -> None:
    with half_closed(server[0], GET + post(pngs[0]) + GET) as connection:
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3


@pytest.mark.parametrize("rest", [b"\r\n", GET[:9], post(b"half", 8), 99 * GET])
def test_it_gets_the_answers_to_whole_requests_before_something_else(
    server: tuple[int, Service], pngs: list[bytes], rest: bytes
) -> None:
    with half_closed(server[0], post(pngs[0]) + post(pngs[1]) + rest) as connection:
        answer = read_all(connection)
    assert answer.count(b'"predictions":') == 2


def test_it_gets_every_event_of_a_stream(server: tuple[int, Service], pngs: list[bytes]) -> None:
    request = post(pngs[0]).replace(b"/v1/classify", STREAM)
    with half_closed(server[0], request) as connection:
        answer = read_all(connection)
    assert answer.count(b"event: exit") == 3
    assert answer.endswith(b"event: done\ndata: {}\n\n\r\n0\r\n\r\n")


def test_without_a_whole_request_it_is_closed(server: tuple[int, Service]) -> None:
    for content in (b"", GET[:-4], post(b"", 10), GET + GET[:9]):
        with half_closed(server[0], content) as connection:
            assert b"POST" not in read_all(connection)


def test_while_it_waits_there_are_interim_responses(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=1)
    with half_closed(port, post(pngs[0])) as connection:
        time.sleep(3 * PROBE_S)
        stage.open.set()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.read()[-1:]) == (200, b"}")
    with half_closed(port, post(pngs[0]).replace(b"HTTP/1.1", b"HTTP/1.0")) as connection:
        assert not read_all(connection).startswith(CONTINUE)


def test_a_client_that_has_closed_both_sides_is_noticed(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=1)
    half_closed(port, post(pngs[0])).close()
    assert_cancelled(service)
    stage.open.set()


def test_a_client_that_leaves_a_stream_in_two_steps_is_noticed(
    server: tuple[int, Service], pngs: list[bytes]
) -> None:
    port, service = server
    stage = hold(service, at=2)
    with half_closed(port, post(pngs[0]).replace(b"/v1/classify", STREAM)) as connection:
        found = b""
        while b":\n\n" not in found:
            found += connection.recv(65536)
    assert_cancelled(service)
    stage.open.set()


def assert_cancelled(service: Service) -> None:
    counted = 'offramp_requests_total{model="tiny",outcome="cancelled"} 1.0'
    asyncio.run(until(lambda: counted in service.metrics.render().decode()))
    assert service.dispatcher.pending == 0
