"""Debian's Prometheus with compose's configuration scrapes a real server under load."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.api.examples import sample_image
from tests.debian import require
from tests.deploy.hosts import PORT, free_port, names, process, seeing, server, wait_for

DOCKER = Path(__file__).parents[2] / "docker"
SERVING = "127.53.0.2"
URL = f"http://{SERVING}:{PORT}"
SCRAPES = 6

pytestmark = pytest.mark.deploy


def post(path: str, body: bytes) -> int:
    """The status of the server's answer to a PNG."""
    request = urllib.request.Request(f"{URL}{path}", body, {"Content-Type": "image/png"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has scraped a server with mixed traffic."""
    place = tmp_path_factory.mktemp("monitoring")
    port = free_port()
    command = [
        require("prometheus", "prometheus"),
        f"--config.file={DOCKER / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={place / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    image = base64.b64decode(sample_image(32, 32))
    budgets = place / "budgets.toml"
    budgets.write_text("[anonymous]\ngmacs_per_second = 1000\n")
    over = threading.Event()

    def traffic() -> None:
        while not over.is_set():
            for threshold in (0.0, 0.3, 0.6, 2.0):
                assert post(f"/v1/classify?threshold={threshold}", image) == 200
            assert post("/v1/classify", b"no image") == 400
            time.sleep(0.05)

    with (
        names({"serving": [SERVING]}, place) as resolv,
        server(SERVING, place, OFFRAMP_SHADOW_SHARE="1", OFFRAMP_BUDGETS=str(budgets)),
        process(seeing(resolv, *command), place / "prometheus.log"),
    ):
        wait_for(f"{URL}/readyz")
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/-/ready")
        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            end = time.monotonic() + 120
            while scrapes(url) < SCRAPES:
                assert time.monotonic() < end, (place / "prometheus.log").read_text()[-2000:]
                time.sleep(1)
            yield url
        finally:
            over.set()
            thread.join()


def ask(url: str, path: str, **parameters: str) -> Any:
    """The data of an answer of Prometheus's HTTP API."""
    with urllib.request.urlopen(
        f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    ) as answer:
        content = json.load(answer)
    assert content["status"] == "success"
    return content["data"]


def scrapes(url: str) -> int:
    """The number of successful scrapes of the server."""
    result = ask(url, "query", query='sum_over_time(up{job="offramp"}[10m])')["result"]
    return int(float(result[0]["value"][1])) if result else 0


def dashboard_queries() -> list[str]:
    """Every query of the dashboard, with Grafana's variables filled in."""
    panels = json.loads((DOCKER / "grafana" / "dashboards" / "offramp.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [query.replace("$model", ".*").replace("$__rate_interval", "1m") for query in found]


def test_the_server_is_discovered_by_its_name(prometheus: str) -> None:
    targets = ask(prometheus, "targets")["activeTargets"]
    health = {t["discoveredLabels"]["__address__"]: t["health"] for t in targets}
    assert health[f"{SERVING}:{PORT}"] == "up"


def test_the_rules_are_loaded_and_can_be_evaluated(prometheus: str) -> None:
    groups = ask(prometheus, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    written = re.findall(
        r"- (?:alert|record): (\S+)", (DOCKER / "prometheus" / "rules.yml").read_text()
    )
    assert sorted(rule["name"] for rule in rules) == sorted(written)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_no_alert_fires_on_a_healthy_server(prometheus: str) -> None:
    assert [
        alert for alert in ask(prometheus, "alerts")["alerts"] if alert["state"] == "firing"
    ] == []


@pytest.mark.parametrize("query", dashboard_queries())
def test_a_chart_has_data(prometheus: str, query: str) -> None:
    result = ask(prometheus, "query", query=query)["result"]
    assert result
    assert any(series["value"][1] != "NaN" for series in result)
