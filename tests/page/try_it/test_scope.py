"""Try it: what the model can answer, and the same on a phone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import FloatRect, Locator, Page, ViewportSize, expect

from exports.bundle.reader import read_manifest
from exports.bundle.resolve import EMBEDDED
from tests.page.axe import violations
from tests.page.conftest import SAMPLES, VIEWPORT, Open
from tests.servers import Server
from tests.serving.tiny_bundle import write_tiny_bundle

FLOWERS = ["bluebell", "buttercup", "crocus", "daisy", "dandelion", "pansy", "wild_rose"]
PHONE: ViewportSize = {"width": 390, "height": 800}


def write_flowers(path: Path, name: str, labels: list[str]) -> str:
    """A bundle of flowers."""
    bundle = write_tiny_bundle(path / name, name=name)
    file = bundle / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "labels": labels}), "utf-8")
    return str(bundle)


@pytest.fixture(scope="module")
def flowers(
    serve: Callable[..., Any], bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with two models of flowers and the one with four exits."""
    place = tmp_path_factory.mktemp("flowers")
    wild = write_flowers(place, "wild", FLOWERS)
    garden = write_flowers(place, "garden", [*FLOWERS[:6], "sunflower"])
    with serve(bundle, wild, garden) as running:
        yield running


@pytest.fixture
def phone(page: Page) -> Iterator[Page]:
    page.set_viewport_size(PHONE)
    yield page
    page.set_viewport_size(VIEWPORT)


def choose(page: Page, model: str) -> None:
    page.get_by_label("Model", exact=True).select_option(model)


def shown_samples(page: Page) -> list[str]:
    """The names of the samples that can be seen."""
    images = page.locator("#samples img").all()
    return [image.get_attribute("alt") or "" for image in images if image.is_visible()]


def test_samples_are_of_the_classes_of_the_model(open_page: Open, flowers: Server) -> None:
    page, _ = open_page(f"{flowers.url}/")
    choose(page, "wild")
    expect(page.get_by_role("heading", name="Samples")).to_be_hidden()
    assert shown_samples(page) == []
    choose(page, "garden")
    expect(page.get_by_role("heading", name="Samples")).to_be_visible()
    assert shown_samples(page) == ["sunflower"]
    page.get_by_role("button", name="sunflower").click()
    expect(page.locator("#result .badge")).to_contain_text("of 3")
    choose(page, "cifar100-oto")
    expect(page.locator("#samples li:visible")).to_have_count(8)


def test_every_sample_is_of_a_class_of_an_embedded_model(page: Page) -> None:
    labels = [read_manifest(bundle).labels for bundle in EMBEDDED.values()]
    buttons = page.locator("#samples button")
    wanted = buttons.evaluate_all("buttons => buttons.map((button) => button.dataset.label)")
    assert len(wanted) == len(list(SAMPLES.glob("*.webp")))
    assert all(sum(sample in known for known in labels) == 1 for sample in wanted)
    assert all(any(sample in known for sample in wanted) for known in labels)


def test_the_page_lists_the_classes_and_warns_that_anything_else_gets_a_wrong_label(
    open_page: Open, flowers: Server
) -> None:
    page, _ = open_page(f"{flowers.url}/")
    scope = page.locator("#scope-text")
    expect(scope).to_contain_text("This model has 100 classes")
    expect(scope).to_contain_text("Input: the middle of the image, 32 x 32 pixels.")
    choose(page, "wild")
    expect(scope).to_have_text(
        "This model has 7 classes; an image of anything else gets a wrong label. "
        "Input: the middle of the image, 8 x 8 pixels."
    )
    classes = page.get_by_role("list", name="Classes")
    expect(classes).to_be_hidden()
    page.get_by_text("List of classes").click()
    expect(classes.get_by_role("listitem")).to_have_text(
        [label.replace("_", " ") for label in FLOWERS]
    )
    assert violations(page) == []
    address = f"{flowers.url}/v1/models/wild/policy"
    policy = httpx.get(address).json()["policy"]
    httpx.put(address, json={**policy, "reject_below": 0.5}).raise_for_status()
    expect(scope).to_contain_text("gets a wrong label or “unsure”.")


def box(locator: Locator) -> FloatRect:
    found = locator.bounding_box()
    assert found is not None
    return found


def expect_in_view(page: Page) -> None:
    """The answer's class, its probability and the saving can be read without scrolling."""
    result = page.locator("#result")
    expect(result.locator(".badge")).to_be_visible()
    for name in ("Probability", "MACs saved"):
        figure = result.locator(".figures > div", has_text=name)
        for part in (figure.locator(".big"), result.locator(".answer")):
            place = box(part)
            assert place["y"] >= 0, (name, place)
            assert place["y"] + place["height"] <= PHONE["height"], (name, place)


def test_on_a_phone_the_answer_is_above_the_fold(phone: Page) -> None:
    phone.set_input_files("#photograph", SAMPLES / "apple.webp")
    expect_in_view(phone)
    assert phone.evaluate("scrollY") == 0


def test_on_a_phone_the_answer_is_in_view_after_a_sample_below_the_fold(phone: Page) -> None:
    phone.get_by_role("button", name="train").scroll_into_view_if_needed()
    phone.evaluate("scrollTo(0, document.body.scrollHeight)")
    phone.get_by_role("button", name="train").evaluate("button => button.click()")
    expect_in_view(phone)


def test_on_a_phone_tables_scroll_and_the_page_does_not(phone: Page) -> None:
    phone.get_by_role("tab", name="Watch it").click()
    expect(phone.locator("#exits-table")).to_contain_text("Exit 4")
    for name in ("exits", "stages", "models"):
        region = phone.locator("#watch .scroll", has=phone.locator(f"#{name}-table"))
        room, size = region.evaluate("region => [region.clientWidth, region.scrollWidth]")
        assert size > room, name
        region.focus()
        region.evaluate("region => region.scrollTo(region.scrollWidth, 0)")
        last = box(region.locator("thead th").last)
        assert last["x"] + last["width"] <= PHONE["width"], name
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
