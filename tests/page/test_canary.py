"""Watch it: a canary beside the stable version, promoted and rolled back by its buttons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.page.axe import violations
from tests.page.conftest import SAMPLES, Open

KEY = "the-key-of-the-operator"
HEADERS = {"X-API-Key": KEY}


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
        picture = (SAMPLES / "rocket.webp").read_bytes()
        for _ in range(3):
            answer = httpx.post(
                f"{server.url}/v1/classify", content=picture, headers={"Content-Type": "image/webp"}
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
        httpx.post(url, json={"bundle": "two"}, headers=HEADERS, timeout=60).raise_for_status()
        page.get_by_role("button", name="Promote").click()
        expect(page.locator("#canaries li").first).to_contain_text("It was promoted.")
        expect(page.locator("#models-table tbody td").first).to_have_text("2")
        page.goto("about:blank")
        # The first click had no key.
        record.forgive_failed_requests()
