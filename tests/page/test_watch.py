"""Watch it: what /metrics says, as numbers and charts."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from exports.bundle.reader import read_manifest
from tests.exports.bundles import INT8
from tests.page.axe import violations
from tests.page.conftest import SAMPLES, Open
from tests.page.test_tune import another, in_force
from tests.servers import Server

KEY = "the-key-of-the-operator"
EXPOSITION = r"""# HELP a_total Words.
# TYPE a_total counter
a_total{model="m \"x\" \\ y",exit="1"} 3.0
a_total{model="m \"x\" \\ y",exit="2"} 1e+02
h_bucket{le="0.1"} 2.0
h_bucket{le="1.0"} 8.0
h_bucket{le="+Inf"} 10.0
"""
PARSE = """async (text) => {
  const { parse, total, values } = await import(new URL("page/watch/parse.js", document.baseURI));
  const metrics = parse(text);
  return [total(metrics, "a_total"), total(metrics, "a_total", {exit: "1"}), total(metrics, "none"),
    metrics.get("a_total")[0].labels.model, values(metrics, "h_bucket", "le")];
}"""
QUANTILES = """async ([before, after]) => {
  const { History, quantile } = await import(new URL("page/watch/history.js", document.baseURI));
  const history = new History();
  history.add(before, 0);
  history.add(after, 10);
  return [0.1, 0.5, 0.99].map((q) => quantile(history.window(), "h", q, {}));
}"""


@pytest.fixture
def watch(page: Page) -> Page:
    page.get_by_role("tab", name="Watch it").click()
    return page


def tile(page: Page, name: str) -> Any:
    return page.locator("#tiles > div").filter(has_text=name).locator("dd")


def cell(page: Page, table: str, row: str, column: int) -> Any:
    return page.locator(f"#{table} tr", has_text=row).locator("td").nth(column)


def test_requests_appear_in_tiles_charts_and_tables(watch: Page, server: Server) -> None:
    image = (SAMPLES / "rocket.webp").read_bytes()
    expect(cell(watch, "exits-table", "Exit 1", 0)).to_be_visible()
    for _ in range(8):
        httpx.post(
            f"{server.url}/v1/classify", content=image, headers={"Content-Type": "image/webp"}
        ).raise_for_status()
    httpx.post(f"{server.url}/v1/classify", content=b"-", headers={"Content-Type": "image/png"})
    expect(tile(watch, "Requests per second")).not_to_have_text("0.00")
    expect(tile(watch, "p50 latency")).to_contain_text(" ms")
    expect(tile(watch, "Rejected per minute")).not_to_have_text("0.00")
    expect(cell(watch, "exits-table", "Exit 1", 0)).to_have_text("100 %")
    for percentile in (1, 2, 3):
        expect(cell(watch, "exits-table", "Exit 1", percentile)).to_contain_text(" ms")
    expect(cell(watch, "stages-table", "Stage 1", 1)).to_have_text("1.00")
    expect(watch.locator("#share-chart .area").first).to_be_attached()
    expect(watch.locator("#rate-chart .line").first).to_have_attribute("d", re.compile("L"))


def test_models_are_listed_with_provider_precision_and_revision(
    watch: Page, policy_url: str
) -> None:
    row = watch.locator("#models-table tbody tr")
    precision = read_manifest(INT8).precision
    threshold = in_force(policy_url)["policy"]["thresholds"][0]
    for text in ("cifar100-oto", precision, "CPUExecutionProvider", f"{threshold:.3f}"):
        expect(row).to_contain_text(text)
    revision = httpx.put(policy_url, json=another(policy_url, 0.25)).json()["revision"]
    expect(row.locator("td").last).to_have_text(str(revision))
    expect(row).to_contain_text("0.250")


def test_thresholds_that_differ_are_listed_for_each_exit_in_order(
    watch: Page, policy_url: str
) -> None:
    policy = another(policy_url, 0) | {"thresholds": [0.25, 0.9, 0.25]}
    httpx.put(policy_url, json=policy).raise_for_status()
    row = watch.locator("#models-table tbody tr")
    expect(row.locator("td").nth(5)).to_have_text("0.250, 0.900, 0.250")
    httpx.put(policy_url, json=another(policy_url, 0.25)).raise_for_status()
    expect(row.locator("td").nth(5)).to_have_text("0.250")


def test_headings_are_the_terms_of_the_field(watch: Page) -> None:
    headings = watch.get_by_role("heading", level=2).all_inner_texts()
    assert headings == [
        *("Drift", "Requests per second", "Exit shares", "p95 latency", "Queue depth"),
        *("Exits, last five minutes", "Stages, last five minutes", "Models"),
    ]
    expect(watch.locator("#tiles dt")).to_have_text(
        [
            *("Requests per second", "p50 latency", "p99 latency"),
            *("Queue depth", "Rejected per minute"),
        ]
    )
    watch.get_by_role("tab", name="Try it").click()
    expect(watch.get_by_role("heading", name="Path through the network")).to_be_visible()


def test_the_sentence_of_the_tests_for_drift_is_shown(watch: Page, server: Server) -> None:
    address = f"{server.url}/v1/models/cifar100-oto/drift"
    with httpx.Client() as client:
        while (found := client.get(address).json())["status"] is None:
            time.sleep(0.1)
    assert found["sentence"].endswith(".")
    expect(watch.locator("#drift")).to_have_text(found["sentence"])
    expect(watch.locator("#drift")).not_to_have_attribute("data-drifting", "")


def test_answers_that_drift_are_marked_and_followed(watch: Page) -> None:
    signals = [{"signal": "exits", "drifting": True}, {"signal": "classes", "drifting": False}]
    drifting = {"sentence": "Answers differ.", "status": {"signals": signals}}
    watch.route("**/drift", lambda route: route.fulfill(json=drifting))
    expect(watch.locator("#drift")).to_have_text("Answers differ.")
    expect(watch.locator("#drift")).to_have_attribute("data-drifting", "")
    assert violations(watch) == []
    watch.unroute("**/drift")
    expect(watch.locator("#drift")).not_to_have_attribute("data-drifting", "")


def test_offline_is_said_and_goes_away_by_itself(open_page: Open, server: Server) -> None:
    page, record = open_page(f"{server.url}/#watch")
    expect(page.locator("#exits-table")).to_contain_text("Exit 1")
    page.context.set_offline(True)
    expect(page.locator("#watch-notice")).to_contain_text("The server does not answer.")
    page.context.set_offline(False)
    expect(page.locator("#watch-notice")).to_be_empty()
    record.forgive_failed_requests()


def test_the_exposition_format_is_read(page: Page) -> None:
    assert page.evaluate(PARSE, EXPOSITION) == [
        103,
        3,
        0,
        'm "x" \\ y',
        ["0.1", "1.0", "+Inf"],
    ]


def test_quantiles_come_from_what_buckets_gained(page: Page) -> None:
    before = EXPOSITION.replace("8.0", "2.0").replace("10.0", "2.0")
    low, median, high = page.evaluate(QUANTILES, [before, EXPOSITION])
    # Eight observations: six between 0.1 and 1, two above, of which only the bound is known.
    assert (low, median, high) == pytest.approx((0.22, 0.7, 1.0))


def test_shadow_checks_are_shown_where_the_server_has_them(page: Page) -> None:
    expect(page.locator("#shadow-card")).to_be_hidden()
    metric = 'offramp_agreement_promised{exit="1",model="cifar100-oto"} 0.967\n'
    page.route(
        "**/metrics",
        lambda route: route.fulfill(body=route.fetch().text() + metric, content_type="text/plain"),
    )
    span = {"shadows": 120, "agreed": 110, "low": 0.81, "high": 0.963}
    raised = {
        "at": "2026-11-28T12:00:00Z",
        "sentence": "the threshold of exit 1 was raised from 0.78 to 0.9: …",
    }
    exits = [
        {"exit": 1, "promised": 0.967, "span": span},
        {"exit": 2, "promised": 0.955, "span": None},
    ]
    answer = {
        "sentence": "130 shadows since the policy was set: the threshold of exit 1 was raised.",
        "status": {"exits": exits, "raises": [raised] * 7},
    }
    page.route("**/shadow", lambda route: route.fulfill(json=answer))
    page.get_by_role("tab", name="Watch it").click()
    expect(page.locator("#shadow")).to_have_text(answer["sentence"])
    expect(page.locator("#shadow-exits li").first).to_contain_text("on 81.00 % to 96.30 % of")
    expect(page.locator("#shadow-exits li").nth(1)).to_contain_text("no images yet")
    expect(page.locator("#raises li")).to_have_count(5)
    expect(page.locator("#raises li").first).to_contain_text("from 0.78 to 0.9")
    assert violations(page) == []


def test_gears_are_shown_where_the_server_has_a_latency_target(page: Page) -> None:
    expect(page.locator("#gears-card")).to_be_hidden()

    def with_gear(route: Route) -> None:
        text = route.fetch().text()
        route.fulfill(body=f'{text}offramp_gear{{model="cifar100-oto"}} 2.0\n')

    shift = {"at": "2026-11-28T20:00:00Z", "before": 0, "after": 2, "reason": "wait"}
    answer = {"sentence": "Gear 2 of 0 to 6: 68.41 %.", "status": {"shifts": [shift] * 7}}
    page.route("**/metrics", with_gear)
    page.route("**/gears", lambda route: route.fulfill(json=answer))
    page.get_by_role("tab", name="Watch it").click()
    expect(page.locator("#gears")).to_have_text(answer["sentence"])
    expect(page.locator("#shifts li")).to_have_count(5)
    expect(page.locator("#shifts li").first).to_contain_text("gear 0 to 2, long wait")
    assert violations(page) == []


def new_version(bundle: Path, path: Path) -> Path:
    """A copy of `bundle` in `path` that says it is version 2."""
    shutil.copytree(bundle, path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"version": "2"}))
    return path


def test_without_a_canary_there_is_no_panel(page: Page) -> None:
    page.get_by_role("tab", name="Watch it").click()
    expect(page.locator("#exits-table")).to_contain_text("Exit 1")
    expect(page.locator("#canary-card")).to_be_hidden()


def test_both_versions_are_shown_and_the_buttons_end_the_canary(
    tmp_path: Path, bundle: Path, serve: Callable[..., Any], open_page: Open
) -> None:
    canary = new_version(bundle, tmp_path / "two")
    key = tmp_path / "key"
    key.write_text(KEY)
    flags = ("--api-key-file", str(key), "--canary", str(canary), "--canary-share", "1")
    with serve(bundle, *flags) as server:
        image = (SAMPLES / "rocket.webp").read_bytes()
        for _ in range(3):
            answer = httpx.post(
                f"{server.url}/v1/classify", content=image, headers={"Content-Type": "image/webp"}
            )
            assert answer.json()["version"] == "2"
        page, record = open_page(f"{server.url}/#watch")
        expect(page.locator("#canary")).to_contain_text("Version 2 answers 100.0% of the requests")
        rows = page.locator("#canary-table tbody tr")
        expect(rows.nth(0)).to_contain_text("Stable1")
        expect(rows.nth(1)).to_contain_text("Canary230")
        assert violations(page) == []

        page.get_by_role("button", name="Roll back").click()
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator("#canary")).to_contain_text("No canary is running.")
        expect(page.locator("#canary-running")).to_be_hidden()
        expect(page.locator("#canaries li")).to_contain_text(
            "version 2. It was rolled back on request."
        )
        assert violations(page) == []

        url = f"{server.url}/v1/models/cifar100-oto/canary"
        httpx.post(
            url, json={"bundle": "two"}, headers={"X-API-Key": KEY}, timeout=60
        ).raise_for_status()
        page.get_by_role("button", name="Promote").click()
        expect(page.locator("#canaries li").first).to_contain_text("It was promoted.")
        expect(page.locator("#models-table tbody td").first).to_have_text("2")
        page.goto("about:blank")
        # The first click had no key.
        record.forgive_failed_requests()
