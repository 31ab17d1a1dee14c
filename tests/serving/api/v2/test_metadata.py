"""Health and metadata, as raw HTTP against the real server."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.serving.api.v2.helpers import (
    INFER,
    assert_error,
    request_of,
)
from tests.serving.conftest import Client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny/versions/1/ready", {"name": "tiny", "ready": True}),
    ],
)
def test_health_is_json(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.json() == body


def test_server_metadata_is_at_both_addresses(http: httpx.Client) -> None:
    bare, slashed = http.get("/v2"), http.get("/v2/")
    assert bare.status_code == slashed.status_code == 200
    assert bare.json() == slashed.json()
    assert list(bare.json()) == ["name", "version", "extensions"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/tiny/versions/2",
        "/v2/models/tiny/versions/2/ready",
        "/v2/models/..%2f..%2fetc/ready",
        "/v2/nowhere",
    ],
)
def test_what_is_not_there_is_a_404_in_the_protocols_form(http: httpx.Client, path: str) -> None:
    assert_error(http.get(path), 404)


def test_inference_needs_a_model_that_is_there(http: httpx.Client, pngs: list[bytes]) -> None:
    body = request_of(pngs[:1])
    assert_error(http.post("/v2/models/other/infer", json=body), 404)
    assert_error(http.post("/v2/models/tiny/versions/2/infer", json=body), 404, "version 1")
    assert http.post("/v2/models/tiny/versions/1/infer", json=body).status_code == 200
    assert_error(http.get(INFER), 405)


def test_a_starting_or_leaving_server_is_not_ready(client: Client) -> None:
    service = client.app.state.service
    service.drain()
    assert_error(client.get("/v2/health/ready"), 503, "shutting down")
    service.phase = "starting"
    assert_error(client.get("/v2/health/ready"), 503, "not loaded")
    assert client.get("/v2/health/live").status_code == 200
