"""Which results are retried, and after how long."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from offramp.client.retries import RetryPolicy, retry_after

POLICY = RetryPolicy(attempts=4, backoff_s=0.1, max_wait_s=10)


def response(status: int, after: str | None = None) -> httpx.Response:
    return httpx.Response(status, headers={} if after is None else {"Retry-After": after})


@pytest.mark.parametrize("status", [429, 502, 503])
def test_retry_after_is_honoured_with_a_little_more(status: int) -> None:
    for attempt in (1, 2, 3):
        wait = POLICY.wait(attempt, response(status, "2"))
        assert wait is not None
        assert 2 <= wait <= 2.2
    assert POLICY.wait(4, response(status, "2")) is None


def test_a_server_that_asks_for_longer_than_the_cap_is_not_asked_again() -> None:
    assert POLICY.wait(1, response(429, "10")) is not None
    assert POLICY.wait(1, response(429, "11")) is None


@pytest.mark.parametrize(
    "result", [response(503), httpx.ConnectError(""), httpx.RemoteProtocolError("")]
)
def test_without_it_the_wait_doubles(result: Any) -> None:
    for attempt, least in ((1, 0.1), (2, 0.2), (3, 0.4)):
        wait = POLICY.wait(attempt, result)
        assert wait is not None
        assert least <= wait <= 1.5 * least


@pytest.mark.parametrize(
    "result", [*map(response, (200, 400, 404, 413, 500, 504)), httpx.ReadTimeout("")]
)
def test_other_results_are_final(result: Any) -> None:
    assert POLICY.wait(1, result) is None


def test_a_date_is_seconds_from_now() -> None:
    found = retry_after(response(503, formatdate(time.time() + 5, usegmt=True)))
    assert found == pytest.approx(5, abs=1.5)
    assert retry_after(response(503, formatdate(0, usegmt=True))) == 0


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "²"])
def test_a_value_that_is_not_valid_is_ignored(value: str) -> None:
    assert retry_after(httpx.Response(503, headers=[("Retry-After", value.encode())])) is None
