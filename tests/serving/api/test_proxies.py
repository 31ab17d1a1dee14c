"""Pages of other origins, and clients behind proxies."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from serving.errors import SettingsError
from serving.settings import Settings, read_settings
from tests.serving.conftest import Client, running
from tests.serving.live import live
from tests.serving.requests import CLASSIFY, as_raw, assert_error
from tests.serving.stages import hold

ORIGIN = "https://page.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,x-request-id",
}


def test_without_the_setting_no_page_of_another_origin_may_read(
    client: Client, pngs: list[bytes]
) -> None:
    image = as_raw(pngs[0])
    answer = client.post(CLASSIFY, **{**image, "headers": {**image["headers"], "Origin": ORIGIN}})
    assert answer.status_code == 200
    preflight = client.runner.run(client.http.options(CLASSIFY, headers=PREFLIGHT))
    assert preflight.status_code == 405
    for found in (answer, preflight):
        assert not any(name.startswith("access-control") for name in found.headers)


def test_an_origin_that_is_allowed_may_send_and_read(bundle_path: Path, pngs: list[bytes]) -> None:
    with running(Settings(bundles=(bundle_path,), workers=1, cors_origins=(ORIGIN,))) as client:
        preflight = client.runner.run(client.http.options(CLASSIFY, headers=PREFLIGHT))
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        image = as_raw(pngs[0])
        for body, status in ((image["content"], 200), (b"text", 400)):
            headers = {**image["headers"], "Origin": ORIGIN}
            answer = client.post(CLASSIFY, content=body, headers=headers)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
            assert answer.headers["X-Request-ID"]
        other = client.get("/livez", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        # Admin routes stay closed to pages of another site.
        closed = client.put("/v1/models/tiny", headers={"Origin": ORIGIN})
        assert_error(closed, 401, "unauthorized")


def test_a_refusal_for_load_can_be_read_too(bundle_path: Path, pngs: list[bytes]) -> None:
    settings = Settings(bundles=(bundle_path,), workers=1, max_queue_ms=1e-3, cors_origins=("*",))
    with live(settings) as (port, service), httpx.Client() as http:
        stage = hold(service, at=1)
        url = f"http://127.0.0.1:{port}{CLASSIFY}"
        first = threading.Thread(target=httpx.post, args=(url,), kwargs=as_raw(pngs[0]))
        first.start()
        assert stage.held.acquire(timeout=10)
        image = as_raw(pngs[1])
        headers = {**image["headers"], "Origin": ORIGIN}
        refused = http.post(url, content=image["content"], headers=headers)
        stage.open.set()
        first.join()
    assert refused.status_code == 429
    assert refused.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("trusted", "client"),
    [("", "127.0.0.1"), ("127.0.0.0/8 ::1", "203.0.113.7"), ("10.0.0.1", "127.0.0.1")],
)
def test_the_client_of_a_trusted_proxy_is_logged(
    bundle_path: Path, trusted: str, client: str
) -> None:
    lines = io.BytesIO()
    settings = read_settings(
        bundles=(bundle_path,), workers=1, access_log=True, forwarded_allow_ips=trusted
    )
    with live(settings, access=lines) as (port, _):
        headers = {"X-Forwarded-For": "203.0.113.7, 127.0.0.1"}
        httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers)
    assert orjson.loads(lines.getvalue())["client"] == client


@pytest.mark.parametrize(
    "wrong",
    [
        {"cors_origins": "example.org"},
        {"cors_origins": "https://example.org/path"},
        {"root_path": "offramp"},
        {"root_path": "/offramp/"},
        {"forwarded_allow_ips": "proxy"},
    ],
)
def test_a_setting_that_is_not_valid_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SettingsError, match=name):
        read_settings(**wrong)


def test_a_body_without_json_as_its_type_is_refused_by_name(client: Client) -> None:
    content = b'{"thresholds": [0.5, 0.5], "max_exit": 3}'
    for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
        answer = client.put("/v1/models/tiny/policy", content=content, headers=headers)
        assert_error(answer, 415, "unsupported_type", "must be application/json")
