"""The real server on a bundle with four exits, and Chromium in front of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.exports.bundles import INT8
from tests.page.browser import Record, chromium, watched, watching
from tests.servers import Server, started

SAMPLES = Path(__file__).parents[2] / "serving" / "page" / "samples"
Open = Callable[..., tuple[Page, Record]]
VIEWPORT: ViewportSize = {"width": 1280, "height": 900}
# The machine may be busy with other tests; a page that is right gets there.
expect.set_options(timeout=15_000)


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle with four exits that may be written to."""
    return Path(shutil.copytree(INT8, tmp_path_factory.mktemp("page") / "bundle"))


@pytest.fixture(scope="package")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`with serve(*bundles, *flags) as server`."""
    place = tmp_path_factory.mktemp("server")

    def run(*arguments: Path | str) -> Any:
        given = map(str, arguments)
        command = [sys.executable, "-m", "offramp.cli", "serve", *given, "--port", "0"]
        return started(command, place)

    return run


def compute_curve(server: Server) -> None:
    """Have `server` compute the trade-off curve, which takes long the first time."""
    httpx.get(f"{server.url}/v1/models/cifar100-oto/tradeoff", timeout=60)


@pytest.fixture(scope="package")
def server(serve: Callable[..., Any], bundle: Path) -> Iterator[Server]:
    with serve(bundle) as running:
        compute_curve(running)
        yield running


@pytest.fixture(scope="package")
def policy_url(server: Server) -> str:
    return f"{server.url}/v1/models/cifar100-oto/policy"


@pytest.fixture
def restored(policy_url: str) -> Iterator[None]:
    """Whatever the test puts in force, the next one begins with the policy that the bundle came with."""
    before = httpx.get(policy_url).json()["policy"]
    yield
    if httpx.get(policy_url).json()["policy"] != before:
        httpx.put(policy_url, json=before).raise_for_status()


# Playwright keeps an event loop running in this thread, which other packages' tests cannot have.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """`open_page(url, **options of a browser context)`: a page and its record; closed at the end,
    when nothing may have gone wrong in any."""
    opened: list[tuple[Page, Record]] = []

    def open_(url: str, **options: Any) -> tuple[Page, Record]:
        context = browser.new_context(**{"viewport": VIEWPORT, **options})
        page = context.new_page()
        record = watched(page, url)
        page.goto(url)
        opened.append((page, record))
        return page, record

    yield open_
    for page, record in opened:
        page.context.close()
        assert record.foreign == []
        assert record.errors == []


@pytest.fixture(scope="package")
def tab(browser: Browser) -> Iterator[Page]:
    """A blank page that tests reuse one after the other: a new one costs a process."""
    context = browser.new_context(viewport=VIEWPORT)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(tab: Page, server: Server, restored: None) -> Iterator[Page]:
    """The page of `server`, loaded again, once it knows what is loaded; nothing may have gone wrong in it."""
    url = f"{server.url}/"
    with watching(tab, url) as record:
        tab.goto(url)
        expect(tab.get_by_text("live")).to_be_visible()
        yield tab
        tab.evaluate("sessionStorage.clear(); localStorage.clear()")
        tab.goto("about:blank")
    tab.context.clear_permissions()
    assert record.foreign == []
    assert record.errors == []
