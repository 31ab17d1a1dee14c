"""The page for everybody: by keyboard, by screen reader, in both schemes, at any width, at rest."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.page.axe import violations
from tests.page.conftest import Open
from tests.page.test_tune import forecast, slider
from tests.servers import Server

VIEWS = ("try", "tune", "watch")
PHONE = {"width": 360, "height": 740}
# Going to another view may move everything; after two frames it stands.
WATCH_SHIFTS = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  await frame();
  window.shifts = [];
  window.watcher?.disconnect();
  window.watcher = new PerformanceObserver((list) => {
    for (const { value, sources } of list.getEntries()) {
      window.shifts.push([value, sources.map(({ node }) => node?.id || node?.className || node?.nodeName)]);
    }
  });
  window.watcher.observe({type: "layout-shift"});
}"""


def visit(page: Page, view: str) -> None:
    """Go to `view` and wait until it shows something."""
    page.locator(f"#tab-{view}").click()
    show(page, view)


def show(page: Page, view: str) -> None:
    """Have something shown in `view`, which is the one chosen."""
    if view == "try":
        page.locator("#samples button").nth(4).click()
        expect(page.locator("#result .badge")).to_be_visible()
    elif view == "tune":
        expect(page.locator("#curve .policy.dot")).to_be_visible()
    else:
        expect(page.locator("#exits-table")).to_contain_text("Exit 4")


def focused(page: Page) -> Any:
    return page.evaluate(
        "document.activeElement.id || document.activeElement.getAttribute('aria-label') "
        "|| document.activeElement.textContent"
    )


@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(
    open_page: Open, server: Server, scheme: str, size: dict[str, int]
) -> None:
    page, _ = open_page(
        f"{server.url}/", color_scheme=scheme, viewport=size, reduced_motion="reduce"
    )
    for view in VIEWS:
        visit(page, view)
        assert (view, violations(page)) == (view, [])
        # Sideways scrolling is for tables, in their own boxes.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_axe_finds_no_barrier_in_what_is_shown_when_things_go_wrong(
    open_page: Open, server: Server
) -> None:
    page, record = open_page(f"{server.url}/", reduced_motion="reduce")
    visit(page, "tune")
    slider(page, "exit 1").fill("0.8")
    expect(page.locator("#curve .policy.ring")).to_be_visible()
    page.context.set_offline(True)
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#tune-notice")).to_contain_text("does not answer")
    expect(page.locator("#link")).to_have_text("offline")
    assert violations(page) == []
    page.goto("about:blank")  # the page asks no more
    record.forgive_failed_requests()


def test_the_whole_way_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "skip"
    page.keyboard.press("Enter")
    assert focused(page) == "try"
    for stop in ("pick", "photograph", "List of classes"):
        page.keyboard.press("Tab")
        assert focused(page) == stop
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#result .badge")).to_have_text("Exit 1 of 4")
    while focused(page) != "run-all-exits":
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator(".exit").last).to_have_attribute("data-state", "beyond")

    page.locator("#tab-try").focus()
    page.keyboard.press("ArrowRight")
    assert focused(page) == "tab-tune"
    expect(page.locator("#tune")).to_be_visible()
    expect(page.locator("#in-force")).to_contain_text("is in force.")
    while focused(page) != "Threshold of all exits":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#apply")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.locator("#undo")).to_be_enabled()
    expect(page.locator("#apply")).to_be_disabled()

    page.locator("#tab-tune").focus()
    page.keyboard.press("End")
    assert focused(page) == "tab-watch"
    expect(page.locator("#exits-table")).to_contain_text("Exit 1")
    page.go_back()
    expect(page.locator("#tune")).to_be_visible()


def test_the_focus_is_seen(page: Page) -> None:
    for _ in range(3):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_a_screen_reader_hears_the_answer_and_the_forecast(page: Page, policy_url: str) -> None:
    expect(page.locator("#result")).to_have_attribute("aria-live", "polite")
    visit(page, "tune")
    slider(page, "exit 1").fill("0.9")
    expect(page.locator("#forecast-text")).to_have_text(
        re.compile(r"Accuracy [\d.]+ %, mean compute [\d.]+ M MACs; exit 1 \d+ %, .*\.")
    )
    expect(page.locator("#curve")).to_have_accessible_name(
        re.compile(f"The policy in force: {forecast(policy_url)['accuracy']:.2f} %")
    )
    expect(slider(page, "exit 1")).to_have_attribute("aria-valuetext", "0.900")


@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE], ids=["wide", "phone"])
def test_nothing_jumps(open_page: Open, server: Server, size: dict[str, int]) -> None:
    page, _ = open_page(f"{server.url}/", viewport=size)
    for view in VIEWS:
        page.locator(f"#tab-{view}").click()
        page.evaluate(WATCH_SHIFTS)
        show(page, view)
        shifts = page.evaluate("window.shifts")
        assert sum(value for value, _ in shifts) < 0.005, (view, shifts)
    page.locator("#tab-try").click()
    page.locator("#maps").click()
    page.evaluate(WATCH_SHIFTS)
    page.locator("#samples button").first.click()
    expect(page.get_by_role("img", name="Exit 4 looks")).to_be_visible()
    assert sum(value for value, _ in page.evaluate("window.shifts")) < 0.005
    page.locator("#tab-tune").click()
    page.evaluate(WATCH_SHIFTS)
    slider(page, "exit 1").fill("0.8")
    expect(page.locator("#curve .policy.ring")).to_be_visible()
    assert page.evaluate("window.shifts") == []
