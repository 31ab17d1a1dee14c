"""Heads of requests: Host, the size, and targets and methods of any kind."""

from __future__ import annotations

import logging
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.http.head import MAX_HEAD_BYTES
from serving.service import Service
from tests.serving.http.raw import assert_refused, read_all

HOST = b"Host: a\r\n"
CLOSE = b"Connection: close\r\n\r\n"


def ask(port: int, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            connection.sendall(content)
            return read_all(connection)
        except ConnectionError:
            return b""


@pytest.mark.parametrize(("hosts", "says"), [(b"", b"none"), (2 * HOST, b"2")])
def test_a_request_of_http_1_1_needs_one_host(
    server: tuple[int, Service], hosts: bytes, says: bytes
) -> None:
    answer = ask(server[0], b"GET /livez HTTP/1.1\r\n" + hosts + CLOSE)
    assert_refused(answer, 400, "invalid_request")
    assert b"Host header" in answer
    assert says in answer


@pytest.mark.parametrize(
    "request_", [b"GET /livez HTTP/1.0\r\n", b"GET /livez HTTP/1.1\r\nHost:\r\n"]
)
def test_an_older_request_needs_none_and_an_empty_one_is_valid(
    server: tuple[int, Service], request_: bytes
) -> None:
    assert ask(server[0], request_ + CLOSE).startswith(b"HTTP/1.1 200")


def padded(size: int, *, target: bool) -> bytes:
    """A request whose head has `size` bytes."""
    start, end = b"GET /livez?", b" HTTP/1.1\r\n" + HOST + b"X-Pad: "
    fill = b"a" * (size - len(start + end) - len(b"\r\n" + CLOSE))
    return (start + fill + end if target else start + end + fill) + b"\r\n" + CLOSE


@pytest.mark.parametrize("target", [True, False], ids=["target", "header"])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_head_may_have_64_kib_and_no_byte_more(
    server: tuple[int, Service], parts: int, target: bool
) -> None:
    for size, status in ((MAX_HEAD_BYTES, b"200"), (MAX_HEAD_BYTES + 1, b"431")):
        content = padded(size, target=target)
        assert content.index(b"\r\n\r\n") + 4 == size
        with socket.create_connection(("127.0.0.1", server[0]), timeout=20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            step = -(-size // parts)
            for at in range(0, size, step):
                connection.sendall(content[at : at + step])
            assert read_all(connection).startswith(b"HTTP/1.1 " + status)


def test_a_second_head_is_measured_too(server: tuple[int, Service]) -> None:
    first = b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = ask(server[0], first + padded(MAX_HEAD_BYTES + 1, target=False))
    assert answer.count(b"HTTP/1.1 200") <= 1
    assert b" 200 OK" not in answer[20:]


@pytest.mark.parametrize("line", [b"CONNECT a:80", b"GET http://a:99999/", b"GET /\xff", b"GET a"])
def test_a_target_that_is_not_valid_is_refused_and_logs_nothing(
    server: tuple[int, Service], caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    answer = ask(server[0], line + b" HTTP/1.1\r\n" + HOST + CLOSE)
    assert_refused(answer, 400, "invalid_request")
    assert caplog.records == []


PATHS = [
    b"/",
    b"/docs",
    b"/livez",
    b"/v1/models",
    b"/v1/classify",
    b"/v2",
    b"/v2/models/tiny/infer",
]
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH"]
ODD = st.sampled_from(
    [
        b"%00",
        b"%ff",
        b"%",
        b"//",
        b"..",
        b"?",
        b"#",
        b"[",
        b"]",
        b":",
        b"@",
        b"\\",
        b";",
        b"&model=",
        b"*",
    ]
)
PRINTABLE = st.binary(max_size=6).map(lambda b: bytes(33 + byte % 94 for byte in b))
PART = st.one_of(st.sampled_from(PATHS), ODD, PRINTABLE)
TARGET = st.lists(PART, min_size=1, max_size=6).map(b"".join)
HOSTS = st.one_of(
    st.sampled_from([b"a", b"", b"[", b"[::1", b"a:b:c", b"\xff", b"a/b?c#d"]), PRINTABLE
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.one_of(st.sampled_from(METHODS), PRINTABLE),
    target=TARGET,
    host=HOSTS,
    origin=st.one_of(st.none(), HOSTS),
)
def test_no_target_method_or_host_makes_a_fault(
    server: tuple[int, Service],
    caplog: pytest.LogCaptureFixture,
    method: bytes,
    target: bytes,
    host: bytes,
    origin: bytes | None,
) -> None:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: " + host, b"Content-Length: 0"]
    if origin is not None:
        lines.append(b"Origin: " + origin)
    answer = ask(server[0], b"\r\n".join(lines) + b"\r\n" + CLOSE)
    assert answer == b"" or answer[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 3", b"HTTP/1.1 4"), answer
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
