"""The key of admin routes, and what is allowed without one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.api.app import create_app
from serving.errors import SettingsError
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.requests import assert_error

KEY = "correct-horse-battery"
ADMIN = [
    ("PUT", "/v1/models/tiny"),
    ("DELETE", "/v1/models/tiny"),
    ("PUT", "/v1/models/tiny/policy"),
]
POLICY = {"thresholds": [0.1, 0.1], "max_exit": 3}


def ask(client: Client, method: str, url: str, **headers: Any) -> Any:
    return client.runner.run(client.http.request(method, url, json=POLICY, headers=headers))


@pytest.mark.parametrize(("method", "url"), ADMIN)
def test_without_the_key_nothing_can_be_changed(bundle_path: Path, method: str, url: str) -> None:
    with running(Settings(bundles=(bundle_path,), workers=1, api_key=KEY)) as client:
        for headers in (
            {},
            {"X-API-Key": "wrong"},
            {"X-API-Key": KEY[:-1]},
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": "Bearer wrong"},
            {"X-API-Key": "é".encode("latin-1")},
        ):
            refused = ask(client, method, url, **headers)
            assert_error(refused, 401, "unauthorized", "Authorization: Bearer KEY")
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/v1/models/tiny/policy").json()["revision"] == 1
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            assert ask(client, "PUT", ADMIN[2][1], **headers).status_code == 200


def test_every_admin_route_requires_the_key(bundle_path: Path) -> None:
    with running(Settings(bundles=(bundle_path,), workers=1, api_key=KEY)) as client:
        schema = client.get("/openapi.json").json()["paths"]
        changing = {
            (verb.upper(), path)
            for path, verbs in schema.items()
            for verb, operation in verbs.items()
            if verb in ("put", "delete", "patch")
            or "load" in path.split("/")[-1]
            or (verb == "post" and "canary" in path.split("/"))
        }
        asking = {
            (verb.upper(), path)
            for path, verbs in schema.items()
            for verb, operation in verbs.items()
            if "security" in operation
        }
        # Whoever started a job can end it: its id is secret.
        assert changing - {("DELETE", "/v1/jobs/{id}")} == asking


def test_on_loopback_no_key_is_needed(client: Client) -> None:
    assert ask(client, "PUT", "/v1/models/tiny/policy").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        *({"Host": host} for host in ("evil.example", "", "[", "[::1")),
        *({"Origin": origin} for origin in ("http://evil.example", "null", "http://[")),
    ],
)
def test_a_page_of_another_site_cannot_use_the_loopback(
    client: Client, headers: dict[str, str]
) -> None:
    assert_error(ask(client, "PUT", "/v1/models/tiny/policy", **headers), 401, "unauthorized")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "[::1]:8000", "localhost"])
def test_a_page_of_the_servers_own_can_use_it(client: Client, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert ask(client, "PUT", "/v1/models/tiny/policy", **headers).status_code == 200


@pytest.mark.parametrize(
    "header", ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"]
)
def test_without_a_key_nothing_can_be_changed_through_a_proxy(client: Client, header: str) -> None:
    headers = {"Host": "127.0.0.1:8000", header: "203.0.113.5"}
    refused = ask(client, "PUT", "/v1/models/tiny/policy", **headers)
    assert_error(refused, 401, "unauthorized", "through no proxy")


def test_without_a_key_nothing_can_be_changed_from_another_machine(client: Client) -> None:
    away = httpx.ASGITransport(app=client.app, client=("203.0.113.5", 1))
    http = httpx.AsyncClient(transport=away, base_url="http://127.0.0.1:8000")
    refused = client.runner.run(http.put("/v1/models/tiny/policy", json=POLICY))
    assert_error(refused, 401, "unauthorized")


@pytest.mark.parametrize(
    "behind", [{"root_path": "/offramp"}, {"forwarded_allow_ips": "10.0.0.0/8"}]
)
def test_a_server_behind_a_proxy_needs_a_key(bundle_path: Path, behind: dict[str, Any]) -> None:
    with running(Settings(bundles=(bundle_path,), workers=1, **behind)) as client:
        refused = ask(client, "PUT", "/v1/models/tiny/policy")
        assert_error(refused, 401, "unauthorized", "OFFRAMP_API_KEY")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org"])
def test_beyond_loopback_nothing_can_be_changed_without_a_key(bundle_path: Path, host: str) -> None:
    with running(Settings(bundles=(bundle_path,), workers=1, host=host)) as client:
        refused = ask(client, "PUT", "/v1/models/tiny/policy")
        assert_error(refused, 401, "unauthorized", "OFFRAMP_API_KEY")
        assert client.get("/v1/models/tiny/policy").status_code == 200


def test_the_key_may_come_from_a_file(bundle_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    with running(Settings(bundles=(bundle_path,), workers=1, api_key_file=file)) as client:
        assert_error(ask(client, *ADMIN[2]), 401, "unauthorized")
        assert ask(client, *ADMIN[2], **{"X-API-Key": KEY}).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"api_key": "short"}, "at least 16 characters"),
        ({"api_key": "sixteen and space"}, "without spaces"),
        ({"api_key": KEY, "api_key_file": "x"}, "not both"),
        ({"api_key_file": "/nowhere/key"}, "/nowhere/key cannot be read"),
    ],
)
def test_an_invalid_key_stops_the_start(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        create_app(Settings(**wrong))
    assert KEY not in str(raised.value)


def test_the_key_is_written_nowhere(bundle_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings(bundles=(bundle_path,), workers=1, api_key=KEY)
    with running(settings) as client:
        for given in (KEY, "another-key-entirely"):
            ask(client, *ADMIN[2], **{"X-API-Key": given})
    assert KEY not in repr(settings) + caplog.text
