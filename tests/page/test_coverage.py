"""Tune it: accuracy against coverage, and the confidence below which an answer is unsure."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.page.tuning import CERTIFICATE, in_force, tuning

PRECISION_CERTIFICATE = {
    "min_precision": 0.9,
    "reject_below": 0.75,
    "confidence": 0.95,
    "bound": 0.9022,
    "answered": 1220,
    "chosen_on": 2500,
    "samples": 2500,
    "split_sha256": "0" * 64,
}


@pytest.fixture
def tune(page: Page) -> Page:
    tuning(page)
    expect(page.locator("#coverage .policy.dot")).to_be_visible()
    return page


def limit(page: Page) -> Locator:
    return page.get_by_role("slider", name="Confidence below which the answer is unsure")


def coverage(url: str, **changes: object) -> dict[str, Any]:
    """What the server says the policy in force, with `changes`, answers."""
    policy = {**in_force(url)["policy"], **changes}
    answer: dict[str, Any] = httpx.post(f"{url}/coverage", json=policy).json()
    return answer


def test_the_curve_shows_what_the_policy_in_force_answers(tune: Page, policy_url: str) -> None:
    everything = coverage(policy_url)["policy"]
    figures = tune.locator("#coverage-figures")
    expect(figures).to_contain_text("In force: answers 100.00 % of images")
    expect(figures).to_contain_text(f"{everything['precision']:.2f} % of them right")
    expect(tune.locator("#coverage-source")).to_contain_text("samples")
    expect(tune.locator("#coverage")).to_have_accessible_name(
        f"Of all images {everything['precision']:.2f} % are answered right; of the surest 1.0 %, "
        f"{coverage(policy_url)['points'][0]['precision']:.2f} %."
    )
    expect(limit(tune)).to_have_attribute("aria-valuetext", "never")


def test_the_keyboard_sets_the_limit_which_is_applied_and_undone(
    tune: Page, policy_url: str
) -> None:
    before = in_force(policy_url)["policy"]
    limit(tune).focus()
    for _ in range(3):
        tune.keyboard.press("PageUp")
    chosen = float(limit(tune).input_value())
    assert chosen > 0.1
    expect(tune.locator("#coverage .policy.ring")).to_be_visible()
    does = coverage(policy_url, reject_below=chosen, precision_certificate=None)["policy"]
    expect(tune.locator("#coverage-figures")).to_contain_text(
        f"Draft: answers {does['coverage']:.2f} % of images, {does['precision']:.2f} % of them right"
    )
    assert in_force(policy_url)["policy"] == before
    tune.get_by_role("button", name="Apply").click()
    expect(tune.locator("#coverage .policy.ring")).to_have_count(0)
    expect(tune.get_by_role("button", name="Apply")).to_be_disabled()
    assert in_force(policy_url)["policy"] == {**before, "reject_below": chosen}
    tune.get_by_role("button", name="Undo").click()
    expect(limit(tune)).to_have_value("0")
    assert in_force(policy_url)["policy"] == before


def test_a_place_on_the_coverage_curve_gives_its_limit(tune: Page, policy_url: str) -> None:
    box = tune.locator("#coverage").bounding_box()
    assert box is not None
    tune.locator("#coverage").click(position={"x": box["width"] * 0.5, "y": box["height"] / 2})
    expect(tune.locator("#coverage .policy.ring")).to_be_visible()
    middle = min(coverage(policy_url)["points"], key=lambda point: abs(point["coverage"] - 46))
    assert abs(float(limit(tune).input_value()) - middle["reject_below"]) < 0.05
    tune.get_by_role("button", name="Discard").click()
    expect(limit(tune)).to_have_value("0")


def test_another_limit_loses_the_certified_precision_alone(tune: Page, policy_url: str) -> None:
    certified = {
        **in_force(policy_url)["policy"],
        "reject_below": 0.75,
        "certificate": CERTIFICATE,
        "precision_certificate": PRECISION_CERTIFICATE,
    }
    httpx.put(policy_url, json=certified).raise_for_status()
    precision = tune.locator("#precision")
    expect(precision).to_contain_text("Precision not verified here")
    expect(precision).to_contain_text(
        "With 95 % confidence at least 90 % of its answers are right. Bound: 90.22 %."
    )
    expect(precision).to_contain_text("certified on 1,220 answers to 2,500 others")
    limit(tune).fill("0.6")
    expect(precision).to_contain_text("These changes lose the certified precision")
    for promise in ("95 % confidence", "at least", "Bound", "certified on"):
        expect(precision).not_to_contain_text(promise)
    expect(tune.locator("#certificate")).not_to_contain_text("lose")
    tune.get_by_role("button", name="Apply").click()
    expect(precision).to_be_empty()
    now = in_force(policy_url)["policy"]
    assert now["certificate"]["bound"] == 0.82
    assert (now["reject_below"], now["precision_certificate"]) == (0.6, None)
    tune.get_by_role("button", name="Undo").click()
    expect(precision).to_contain_text("Precision not verified here")


def test_other_thresholds_lose_both_certificates(tune: Page, policy_url: str) -> None:
    certified = {
        **in_force(policy_url)["policy"],
        "reject_below": 0.75,
        "certificate": CERTIFICATE,
        "precision_certificate": PRECISION_CERTIFICATE,
    }
    httpx.put(policy_url, json=certified).raise_for_status()
    expect(tune.locator("#precision")).to_contain_text("Precision not verified here")
    tune.get_by_role("slider", name="Threshold of exit 1", exact=True).fill("0.7")
    expect(tune.locator("#precision")).to_contain_text("These changes lose")
    expect(tune.locator("#certificate")).to_contain_text("These changes lose the certificate")
    expect(tune.locator("#certificate")).not_to_contain_text("at most")
    tune.get_by_role("button", name="Apply").click()
    expect(tune.locator("#certificate")).to_contain_text("Not certified")
    assert in_force(policy_url)["policy"]["precision_certificate"] is None
