"""HEAD on every GET, and addresses below a proxy's prefix."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.live import live
from tests.serving.requests import CLASSIFY, as_raw

PREFIX = "/behind/a-proxy"


@pytest.fixture(scope="module")
def prefixed(bundle_path: object) -> Iterator[Client]:
    with running(Settings(bundles=(bundle_path,), workers=1, root_path=PREFIX)) as client:
        yield client


def test_head_is_get_without_the_body_on_every_route(settings: Settings) -> None:
    with live(settings) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        paths = http.get("/openapi.json").json()["paths"]
        gets = [path for path, operations in paths.items() if "get" in operations]
        assert len(gets) > 10
        for path in (*gets, "/", "/docs", "/openapi.json", "/page/main.js", "/v1/models/none"):
            url = path.replace("{name}", "tiny").replace("{version}", "1")
            get, head = http.get(url), http.head(url)
            assert (head.status_code, head.content) == (get.status_code, b"")
            same = ("content-type", "content-length", "etag", "content-security-policy")
            if url != "/metrics" and not url.endswith("/stats"):
                assert [head.headers.get(name) for name in same] == [
                    get.headers.get(name) for name in same
                ]
        # On one connection: no body was left in it.
        assert http.get("/livez").text == "ok\n"
        wrong = http.head("/v1/classify")
        assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
        assert http.post("/livez").headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["", PREFIX])
def test_addresses_work_with_and_without_the_prefix(
    prefixed: Client, pngs: list[bytes], path: str
) -> None:
    for address in ("/livez", "/", "/docs", "/page/main.js", "/v2/models/tiny"):
        assert prefixed.get(path + address).status_code == 200
    # Larger than bodies without images may be.
    padded = pngs[0] + bytes(100_000)
    assert prefixed.post(path + CLASSIFY, **as_raw(padded)).status_code == 200
    assert prefixed.get(f"{path}{PREFIX}/livez").status_code == (404 if path else 200)


def test_the_prefix_alone_leads_to_the_page(prefixed: Client) -> None:
    """With the slash, on which the page's links depend."""
    answer = prefixed.get(PREFIX)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"{PREFIX}/")
    assert answer.headers["X-Request-ID"]
    assert prefixed.get(f"{PREFIX}page").status_code == 404


def test_openapi_names_the_prefix(prefixed: Client) -> None:
    assert prefixed.get("/openapi.json").json()["servers"] == [{"url": PREFIX}]
