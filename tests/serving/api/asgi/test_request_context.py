"""Request ids, and answers to unexpected faults."""

from __future__ import annotations

import pytest

from tests.serving.conftest import Client
from tests.serving.requests import (
    CLASSIFY,
    PNG,
    assert_error,
    metrics,
)


def test_an_unexpected_fault_is_answered_with_its_id_alone(
    client: Client, pngs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    client.app.state.service.models.get(None).engine.judge = broken
    answer = client.post(CLASSIFY, content=pngs[0], headers={**PNG, "X-Request-ID": "abc"})
    assert_error(answer, 500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"] == "abc"
    assert "request abc failed" in caplog.text
    assert "secret detail" in caplog.text
    assert 'offramp_requests_total{model="tiny",outcome="internal"} 1.0' in metrics(client)


def test_a_usable_request_id_is_echoed(client: Client) -> None:
    for path in ("/livez", "/nowhere", "/v1/models"):
        answer = client.get(path, headers={"X-Request-ID": "trace-1/a"})
        assert answer.headers["X-Request-ID"] == "trace-1/a"


@pytest.mark.parametrize("given", ["", "a b", "é".encode(), "x" * 129])
def test_another_request_id_is_replaced(client: Client, given: str | bytes) -> None:
    found = client.get("/livez", headers={"X-Request-ID": given}).headers["X-Request-ID"]
    assert len(found) == 32
    assert found.isalnum()
