"""The view Tune it, opened, and the policy that the server has in force."""

from __future__ import annotations

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect

CERTIFICATE = {
    "method": "exact-trinomial",
    "against": "ensemble",
    "permitted_drop": 1.0,
    "confidence": 0.95,
    "bound": 0.82,
    "chosen_on": 2500,
    "samples": 2500,
    "split_sha256": "0" * 64,
    "target": "labels",
}


def tuning(page: Page) -> Page:
    page.get_by_role("tab", name="Tune it").click()
    expect(page.locator("#in-force")).to_contain_text(re.compile(r"Revision \d+ is in force\."))
    expect(page.locator("#curve .policy.dot")).to_be_visible()
    return page


def in_force(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(url).json()
    return answer
