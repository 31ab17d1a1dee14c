"""What the page's server answers, and that the page shows it."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urljoin

import httpx
from playwright.sync_api import Page, expect

from tests.page.conftest import SAMPLES


def encoded(name: str) -> str:
    """The sample `name` in base64."""
    return base64.b64encode((SAMPLES / f"{name}.webp").read_bytes()).decode()


def ask(page: Page, path: str, name: str = "") -> Any:
    """What the page's server answers, about the sample `name` if there is one."""
    address = urljoin(page.url, path)
    if not name:
        return httpx.get(address).json()
    content = (SAMPLES / f"{name}.webp").read_bytes()
    return httpx.post(address, content=content, headers={"Content-Type": "image/webp"}).json()


def expect_answer(page: Page, name: str) -> int:
    """The page shows what the server answers about the sample `name`; returns the exit it left at."""
    (answer,) = ask(page, "/v1/classify", name)["predictions"]
    exit_: int = answer["exit"]
    expect(page.locator("#result .answer")).to_have_text(answer["label"].replace("_", " "))
    expect(page.locator("#result .badge")).to_have_text(f"Exit {exit_} of 4")
    expect(page.locator(".exit").nth(exit_ - 1)).to_have_attribute("data-state", "left")
    return exit_
