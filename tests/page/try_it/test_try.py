"""Try it: an image in, by every way there is, and its journey out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.axe import violations
from tests.page.conftest import SAMPLES, Open
from tests.page.try_it.answers import ask, encoded, expect_answer
from tests.serving.tiny_bundle import write_tiny_bundle

RECORD_STATES = """() => {
  window.states = [];
  new MutationObserver((records) => {
    for (const { target, type } of records) {
      const card = type === "attributes" && target.closest(".exit");
      if (card) window.states.push(`${card.querySelector("h3").textContent} ${card.dataset.state}`);
      else if (target.id === "result" && target.querySelector(".badge")) window.states.push("answer");
    }
  }).observe(document.getElementById("try"),
    {subtree: true, childList: true, attributes: true, attributeFilter: ["data-state"]});
}"""
AS_TRANSFER = """(content) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.webp", {type: "image/webp"}));
  return transfer;
}"""
COPY_IMAGE = """async (address) => {
  const image = await createImageBitmap(await (await fetch(address)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").drawImage(image, 0, 0);
  const blob = await canvas.convertToBlob({type: "image/png"});
  await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
}"""


def test_a_sample_is_classified_and_the_saving_shown(page: Page) -> None:
    page.get_by_role("button", name="rocket").click()
    exit_ = expect_answer(page, "rocket")
    assert exit_ < 4, "the sample is there to leave early"
    macs = [entry["macs"] for entry in ask(page, "/v1/models")["models"][0]["exits"]]
    result = page.locator("#result")
    expect(result).to_contain_text(f"{100 * (1 - macs[exit_ - 1] / macs[-1]):.0f} %")
    expect(result).to_contain_text(f"{macs[exit_ - 1] / 1e6:.1f} M of {macs[-1] / 1e6:.1f} M")
    expect(result).to_contain_text(re.compile(r"Compute time[\d.]+ ms"))
    expect(page.locator(".exit").nth(exit_)).to_contain_text("not run")
    expect(page.get_by_role("button", name="rocket")).to_have_attribute("aria-pressed", "true")


def test_a_dropped_image_is_classified(page: Page) -> None:
    transfer = page.evaluate_handle(AS_TRANSFER, encoded("sunflower"))
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect_answer(page, "sunflower")
    expect(page.get_by_role("img", name="dropped.webp")).to_be_visible()


def test_a_pasted_image_is_classified(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(COPY_IMAGE, "page/samples/mountain.webp")
    page.keyboard.press("Control+V")
    expect_answer(page, "mountain")


@pytest.mark.parametrize("way", ["#pick", "#photograph"])
def test_a_picked_or_photographed_image_is_classified(page: Page, way: str) -> None:
    page.set_input_files(way, SAMPLES / "apple.webp")
    expect_answer(page, "apple")


def test_exits_light_up_one_by_one_and_then_the_answer_comes(page: Page) -> None:
    page.evaluate(RECORD_STATES)
    page.get_by_role("button", name="fish").click()
    left = expect_answer(page, "fish")
    assert left > 1, "the sample is there to pass an exit"
    waiting = [f"Exit {k} waiting" for k in (1, 2, 3, 4)]
    passed = [f"Exit {k} passed" for k in range(1, left)]
    skipped = [f"Exit {k} skipped" for k in range(left + 1, 5)]
    reached = [*passed, f"Exit {left} left", *skipped]
    assert page.evaluate("window.states")[:9] == [*waiting, *reached, "answer"]
    first = page.locator(".exit").first
    alone = ask(page, "/v1/classify?mode=exit&max_exit=1", "fish")["predictions"][0]
    expect(first.locator(".classes li")).to_have_count(5)
    expect(first.locator(".classes li").first).to_contain_text(alone["label"].replace("_", " "))
    threshold = ask(page, "/v1/models")["models"][0]["policy"]["thresholds"][0]
    expect(first.locator(".sure")).to_have_text(
        re.compile(rf"^probability 0\.\d{{3}}, leaves at {threshold:.3f}$")
    )


def test_later_exits_answer_when_asked(page: Page) -> None:
    page.get_by_role("button", name="rocket").click()
    exit_ = expect_answer(page, "rocket")
    page.get_by_role("button", name="Run all exits").click()
    expect_answer(page, "rocket")
    for later in range(exit_, 4):
        expect(page.locator(".exit").nth(later)).to_have_attribute("data-state", "beyond")
    expect(page.locator("#result")).to_contain_text("Every later exit agrees.")


def milliseconds(value: float) -> str:
    """`value` as the page writes it: the decimal number is rounded, halves away from zero."""
    unit = "1" if value >= 100 else "0.1" if value >= 10 else "0.01"
    return f"{Decimal(str(value)).quantize(Decimal(unit), ROUND_HALF_UP)} ms"


def test_the_milliseconds_of_an_exit_are_those_of_its_stages(page: Page) -> None:
    bodies: list[str] = []

    def keep(route: Route) -> None:
        response = route.fetch()
        bodies.append(response.text())
        route.fulfill(response=response)

    page.get_by_role("button", name="Run all exits").click()
    page.route("**/v1/classify/stream*", keep)
    page.get_by_role("button", name="rocket").click()
    expect_answer(page, "rocket")
    page.unroute("**/v1/classify/stream*")
    blocks = [block.splitlines() for block in bodies[0].split("\n\n")]
    events = [(name, json.loads(data[6:])) for name, data, *_ in filter(None, blocks)]
    exits = [data for name, data in events if name == "event: exit"]
    spent = [data["compute_ms"] for data in exits]
    assert spent == sorted(set(spent)), "every stage costs time"
    for card, reached in zip(page.locator(".exit").all(), exits, strict=True):
        cost = f"{reached['macs'] / 1e6:.1f} M MACs, {milliseconds(reached['compute_ms'])}"
        expect(card.locator(".cost")).to_have_text(cost)
    figure = page.locator("#result .figures > div").nth(1)
    left = next(data for data in exits if data["left"])
    expect(figure.locator(".big")).to_have_text(milliseconds(left["compute_ms"]))
    expect(figure).to_contain_text(f"{milliseconds(spent[-1])} to exit 4")


def test_an_answer_without_a_label_is_unsure_and_says_what_is_likeliest(
    page: Page, policy_url: str
) -> None:
    in_force = httpx.get(policy_url).json()["policy"]
    httpx.put(policy_url, json={**in_force, "reject_below": 1.0}).raise_for_status()
    expect(page.locator("#rule")).to_contain_text(
        'Below a probability of 1.000 the answer is "unsure"'
    )
    page.get_by_role("button", name="rocket").click()
    result = page.locator("#result")
    expect(result.locator(".answer")).to_have_text("unsure")
    expect(result).to_contain_text("Most likely rocket, but too improbable for this policy.")
    page.get_by_role("button", name="What each exit looks at").click()
    expect(page.locator("#maps-of")).to_have_text("Where each exit finds evidence for rocket.")
    assert violations(page) == []


def drawn(page: Page) -> Any:
    """The size of every exit's map, and how many different colours it has."""
    return page.locator(".heat canvas").evaluate_all(
        """canvases => canvases.map((canvas) => {
          const {width, height} = canvas;
          const data = new Uint32Array(
            canvas.getContext("2d").getImageData(0, 0, width, height).data.buffer);
          return [width, height, new Set(data).size > 3];
        })"""
    )


def test_what_each_exit_looks_at_is_drawn_when_asked_and_fetched_once(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    maps = page.get_by_role("button", name="What each exit looks at")
    page.get_by_role("button", name="rocket").click()
    expect_answer(page, "rocket")
    expect(maps).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".heat").first).to_be_hidden()
    assert not any("/maps" in url for url in asked)

    maps.click()
    place = "(top|bottom|left|right|centre|(upper|lower) (left|right))"
    for k in (1, 2, 3, 4):
        name = re.compile(rf"^Exit {k} looks (mostly at the {place}|at all of it)$")
        expect(page.get_by_role("img", name=name)).to_be_visible()
    assert drawn(page) == [[4, 4, True]] * 4
    answer = page.locator("#result .answer").inner_text()
    expect(page.locator("#maps-of")).to_have_text(f"Where each exit finds evidence for {answer}.")
    assert violations(page) == []

    # Hidden, shown again, later exits asked: it is the same image.
    maps.click()
    expect(page.locator(".heat").first).to_be_hidden()
    maps.click()
    page.get_by_role("button", name="Run all exits").click()
    expect(page.locator(".exit").last).to_have_attribute("data-state", "beyond")
    expect(page.locator(".heat").first).to_be_visible()
    assert sum("/maps" in url for url in asked) == 1

    page.get_by_role("button", name="sunflower").click()
    expect_answer(page, "sunflower")
    answer = page.locator("#result .answer").inner_text()
    expect(page.locator("#maps-of")).to_have_text(f"Where each exit finds evidence for {answer}.")
    expect(page.get_by_role("img", name="Exit 4 looks")).to_be_visible()
    assert sum("/maps" in url for url in asked) == 2


def test_a_model_without_maps_offers_none(
    open_page: Open, serve: Callable[..., Any], tmp_path: Path
) -> None:
    with serve(write_tiny_bundle(tmp_path / "tiny")) as server:
        page, _ = open_page(f"{server.url}/")
        expect(page.locator(".exit")).to_have_count(3)
        page.set_input_files("#pick", SAMPLES / "rocket.webp")
        expect(page.locator("#result .badge")).to_contain_text("of 3")
        expect(page.locator("#maps")).to_be_hidden()
        # Before its server goes, which it would notice.
        page.close()


def test_maps_that_cannot_be_had_are_explained(
    open_page: Open, serve: Callable[..., Any], tmp_path: Path
) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny", maps=True)
    with serve(bundle) as server:
        page, record = open_page(f"{server.url}/")
        expect(page.locator(".exit")).to_have_count(3)
        (bundle / "maps.onnx").unlink()
        page.set_input_files("#pick", SAMPLES / "rocket.webp")
        page.get_by_role("button", name="What each exit looks at").click()
        expect(page.locator("#try-notice").get_by_role("alert")).to_contain_text("maps.onnx")
        expect(page.get_by_role("img", name="Map of exit 1: not drawn yet")).to_be_visible()
        record.forgive_failed_requests()
        # Before its server goes, which it would notice.
        page.close()


def test_another_model_is_chosen_and_its_labels_stay_text(
    open_page: Open, serve: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    hostile = write_tiny_bundle(tmp_path / "tiny")
    manifest = json.loads((hostile / "manifest.json").read_text("utf-8"))
    label = "<img src=x onerror=alert(1)>"
    manifest["labels"] = [f"{label}{number}" for number in range(7)]
    (hostile / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with serve(bundle, str(hostile)) as server:
        page, _ = open_page(f"{server.url}/")
        page.get_by_role("button", name="rocket").click()
        expect_answer(page, "rocket")
        page.get_by_label("Model", exact=True).select_option("tiny")
        expect(page.locator(".exit")).to_have_count(3)
        expect(page.locator("#result .answer")).to_contain_text(label)
        expect(page.locator(".classes .name").first).to_contain_text(label)
        assert page.locator("img[src=x]").count() == 0
        page.get_by_role("tab", name="Tune it").click()
        expect(page.get_by_role("slider")).to_have_count(4)
        expect(page.locator("#curve .area")).to_have_count(3)
        # Before its server goes, which it would notice.
        page.close()
