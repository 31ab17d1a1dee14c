"""The page on the bundles that ship: two networks each, which take the image."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from exports.bundle.resolve import EMBEDDED
from tests.page.conftest import Open
from tests.page.tuning import in_force, tuning
from tests.servers import Server


@pytest.fixture(scope="module", params=EMBEDDED)
def name(request: pytest.FixtureRequest) -> str:
    """The name of the bundle."""
    return str(request.param)


@pytest.fixture(scope="module")
def shipped(
    name: str, serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    copy = shutil.copytree(EMBEDDED[name], tmp_path_factory.mktemp("shipped") / "b")
    with serve(Path(copy)) as it:
        yield it


def test_an_image_is_answered_a_threshold_tuned_and_the_exits_watched(
    open_page: Open, shipped: Server, name: str
) -> None:
    page, _ = open_page(f"{shipped.url}/")
    page.locator("#samples li:visible button").first.click()
    expect(page.locator("#result .badge")).to_contain_text(re.compile("exit [12] of 2", re.I))

    tuning(page)
    sliders = page.get_by_role("slider", name=re.compile("^Threshold of exit"))
    expect(sliders).to_have_count(1)
    expect(page.locator("#curve .area")).to_have_count(2)
    sliders.first.fill("0.25")
    address = f"{shipped.url}/v1/models/{name}/policy"
    before = in_force(address)["revision"]
    page.get_by_role("button", name="Apply", exact=True).click()
    expect(page.locator("#in-force")).to_have_text(f"Revision {before + 1} is in force.")
    assert in_force(address)["policy"]["thresholds"] == [0.25]

    page.get_by_role("tab", name="Watch it").click()
    expect(page.locator("#exits-table tbody tr")).to_have_count(2)
    expect(page.locator("#models-table tbody tr")).to_contain_text("0.250")


def test_without_a_bundle_the_page_opens_on_groceries(
    open_page: Open, serve: Callable[..., Any]
) -> None:
    with serve() as both:
        page, _ = open_page(f"{both.url}/")
        options = page.get_by_label("Model", exact=True).locator("option")
        expect(options).to_have_text(list(EMBEDDED))
        expect(page.locator("#scope-text")).to_contain_text("This model has 81 classes")
        page.get_by_role("button", name="bananas").click()
        expect(page.locator("#result")).to_contain_text("Banana")
