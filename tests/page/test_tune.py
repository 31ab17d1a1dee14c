"""Tune it: try a policy out, put it in force, take it back, and meet another operator."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.page.conftest import Open, compute_curve
from tests.page.tuning import CERTIFICATE, in_force, tuning
from tests.servers import Server

KEY = "a-key-of-this-very-test"


@pytest.fixture
def tune(page: Page) -> Page:
    return tuning(page)


def slider(page: Page, name: str) -> Locator:
    return page.get_by_role("slider", name=f"Threshold of {name}", exact=True)


def drag(page: Page, name: str, share: float) -> None:
    """Take the slider's thumb with the mouse to `share` of the way."""
    box = slider(page, name).bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * share, middle, steps=8)


def another(url: str, threshold: float) -> dict[str, Any]:
    """The policy in force with one threshold for all exits, which nothing certifies."""
    thresholds = [threshold] * len(in_force(url)["policy"]["thresholds"])
    return {**in_force(url)["policy"], "thresholds": thresholds, "certificate": None}


def forecast(url: str) -> dict[str, Any]:
    """What the server says the policy in force does."""
    answer: dict[str, Any] = httpx.post(f"{url}/preview", json=in_force(url)["policy"]).json()
    return answer


def test_the_curve_shows_what_the_policy_in_force_does(tune: Page, policy_url: str) -> None:
    does = forecast(policy_url)
    expect(tune.locator("#forecast")).to_contain_text(f"{does['accuracy']:.2f} %")
    expect(tune.locator("#forecast")).to_contain_text(f"{does['drop']:.2f} points below full depth")
    expect(
        tune.locator("#forecast").get_by_role("img", name=re.compile("^Now: exit 1"))
    ).to_be_visible()
    expect(tune.locator("#curve .area")).to_have_count(4)
    expect(tune.locator("#curve-source")).to_contain_text("5,000 held-out samples")


def test_the_chart_shows_the_same_exit_shares_as_the_bar_where_thresholds_differ_by_exit(
    tune: Page, policy_url: str
) -> None:
    policy = another(policy_url, 0) | {"thresholds": [0.9, 0.3, 0.6]}
    revision = httpx.put(policy_url, json=policy).json()["revision"]
    expect(tune.locator("#in-force")).to_have_text(f"Revision {revision} is in force.")
    wanted = forecast(policy_url)["exit_shares"]
    words = ", ".join(f"exit {k}: {percent(share)}" for k, share in enumerate(wanted, 1))
    expect(tune.get_by_role("img", name=f"Now: {words}", exact=True)).to_be_visible()
    assert drawn_shares(tune, "dot") == pytest.approx(wanted, abs=0.002)
    # The line of the policy ends above the areas, which are of other thresholds.
    line, bar = (tune.locator(f"#curve {kind}.dot").bounding_box() for kind in (".drop-line", "g"))
    assert line is not None
    assert bar is not None
    assert line["y"] + line["height"] < bar["y"]
    slider(tune, "exit 1").fill("0.5")
    draft = {**policy, "thresholds": [0.5, 0.3, 0.6]}
    expect(tune.locator("#curve g.ring")).to_be_attached()
    shares = httpx.post(f"{policy_url}/preview", json=draft).json()["exit_shares"]
    assert drawn_shares(tune, "ring") == pytest.approx(shares, abs=0.002)
    assert drawn_shares(tune, "dot") == pytest.approx(wanted, abs=0.002)


def percent(share: float) -> str:
    """`share` as the page writes it."""
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def drawn_shares(page: Page, kind: str) -> list[float]:
    """The exit shares that the chart draws for the policy in force ("dot") or the draft ("ring")."""
    heights = page.locator(f"#curve g.{kind} rect").evaluate_all(
        "rects => rects.map((rect) => Number(rect.getAttribute('height')))"
    )
    return [height / heights[-1] for height in heights[:-1]]


def test_dragging_previews_and_changes_nothing(tune: Page, policy_url: str) -> None:
    before = in_force(policy_url)
    drag(tune, "all exits", 0.9)
    # While the button is still down.
    expect(tune.locator("#forecast")).to_contain_text(re.compile(r"\+0\.\d+ points"))
    expect(tune.locator("#curve .policy.ring")).to_be_visible()
    tune.mouse.up()
    expect(tune.get_by_role("button", name="Apply")).to_be_enabled()
    assert in_force(policy_url) == before
    tune.get_by_role("button", name="Discard").click()
    expect(tune.locator("#curve .policy.ring")).to_have_count(0)
    expect(tune.get_by_role("button", name="Apply")).to_be_disabled()


def test_a_place_on_the_curve_gives_its_threshold(tune: Page) -> None:
    box = tune.locator("#curve").bounding_box()
    assert box is not None
    tune.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + 60)
    expect(tune.locator("#curve .policy.ring")).to_be_visible()
    assert float(slider(tune, "exit 1").input_value()) < 0.5


def test_apply_then_undo(tune: Page, policy_url: str) -> None:
    before = in_force(policy_url)
    slider(tune, "exit 2").focus()
    for _ in range(5):
        tune.keyboard.press("ArrowRight")
    tune.get_by_role("button", name="Apply").click()
    expect(tune.locator("#in-force")).to_have_text(
        f"Revision {before['revision'] + 1} is in force."
    )
    now = in_force(policy_url)
    first, second, third = now["policy"]["thresholds"]
    was = before["policy"]["thresholds"]
    assert (first, third) == (was[0], was[2])
    assert second > was[1]
    tune.get_by_role("button", name="Undo").click()
    expect(tune.locator("#in-force")).to_have_text(
        f"Revision {before['revision'] + 2} is in force."
    )
    assert in_force(policy_url)["policy"] == before["policy"]
    expect(tune.get_by_role("button", name="Undo")).to_be_disabled()


def test_mode_measure_and_depth_are_applied(tune: Page, policy_url: str) -> None:
    tune.get_by_label("Measure").select_option("entropy")
    tune.get_by_label("Combine").select_option("single")
    tune.get_by_label("Deepest exit").select_option("3")
    expect(slider(tune, "exit 3")).to_be_disabled()
    tune.get_by_role("radio", name="Ensemble").check()
    expect(slider(tune, "exit 1")).to_be_disabled()
    tune.get_by_role("button", name="Apply").click()
    expect(tune.get_by_role("button", name="Apply")).to_be_disabled()
    policy = in_force(policy_url)["policy"]
    wanted = {"mode": "ensemble", "measure": "entropy", "combine": "single", "max_exit": 3}
    assert {name: policy[name] for name in wanted} == wanted


def collide(page: Page, policy_url: str) -> tuple[Locator, dict[str, Any]]:
    """Draft and apply a policy while somebody else puts another in force: the alert, and theirs."""
    tuning(page)
    slider(page, "exit 1").fill("0.8")
    theirs: dict[str, Any] = httpx.put(policy_url, json=another(policy_url, 0.3)).json()
    page.get_by_role("button", name="Apply").click()
    return page.locator("#tune-notice").get_by_role("alert"), theirs


def test_a_conflict_is_shown_and_nothing_overwritten(
    open_page: Open, server: Server, policy_url: str, restored: None
) -> None:
    page, record = open_page(f"{server.url}/")
    alert, theirs = collide(page, policy_url)
    expect(alert).to_contain_text("Nothing was overwritten")
    assert in_force(policy_url) == theirs
    alert.get_by_role("button", name=f"Load revision {theirs['revision']}").click()
    expect(page.locator("#in-force")).to_have_text(f"Revision {theirs['revision']} is in force.")
    expect(slider(page, "exit 1")).to_have_value("0.3")
    record.forgive_failed_requests()


def test_after_a_conflict_the_draft_can_be_kept_and_applied_knowingly(
    open_page: Open, server: Server, policy_url: str, restored: None
) -> None:
    page, record = open_page(f"{server.url}/")
    before = in_force(policy_url)["policy"]["thresholds"]
    alert, _ = collide(page, policy_url)
    alert.get_by_role("button", name="Keep my draft").click()
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    assert in_force(policy_url)["policy"]["thresholds"] == [0.8, *before[1:]]
    record.forgive_failed_requests()


def test_another_operators_change_appears_by_itself(tune: Page, policy_url: str) -> None:
    revision = httpx.put(policy_url, json=another(policy_url, 0.4)).json()["revision"]
    expect(tune.locator("#in-force")).to_have_text(f"Revision {revision} is in force.")
    expect(slider(tune, "exit 1")).to_have_value("0.4")


def test_a_persisted_policy_is_in_the_bundle(tune: Page, bundle: Path) -> None:
    file = bundle / "policy.json"
    before = json.loads(file.read_text("utf-8"))
    slider(tune, "exit 1").fill("0.7")
    tune.get_by_label("Keep after a restart").check()
    tune.get_by_role("button", name="Apply").click()
    expect(tune.get_by_role("button", name="Apply")).to_be_disabled()
    assert json.loads(file.read_text("utf-8"))["thresholds"][0] == 0.7
    tune.get_by_role("button", name="Undo").click()
    expect(tune.get_by_role("button", name="Undo")).to_be_disabled()
    after = json.loads(file.read_text("utf-8"))
    assert {name: after[name] for name in before} == before


@pytest.fixture(scope="module")
def guarded(
    serve: Callable[..., Any], bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that wants a key, with a certified policy."""
    certified = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("guarded") / "certified"))
    file = certified / "policy.json"
    policy = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**policy, "certificate": CERTIFICATE}), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFRAMP_API_KEY", KEY)
        with serve(certified) as running:
            compute_curve(running)
            yield running


def test_the_key_is_asked_for_and_kept_in_the_tab_alone(open_page: Open, guarded: Server) -> None:
    page, record = open_page(f"{guarded.url}/")
    tuning(page)
    slider(page, "exit 1").fill("0.7")
    page.get_by_role("button", name="Apply").click()
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("not-the-right-key-at-all")
    page.keyboard.press("Enter")
    expect(field).to_be_focused()
    expect(field).to_have_value("")
    field.fill(KEY)
    page.keyboard.press("Enter")
    expect(field).to_have_count(0)
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    assert page.context.cookies() == []
    record.forgive_failed_requests()


def test_a_certificate_that_the_server_has_redone_is_shown_as_such(tune: Page) -> None:
    expect(tune.locator("#certificate .figure")).to_have_text("Certified")


def test_a_certificate_is_shown_with_its_bound_and_lost_by_a_change(
    open_page: Open, guarded: Server
) -> None:
    page, _ = open_page(f"{guarded.url}/")
    tuning(page)
    page.evaluate("(key) => sessionStorage.setItem('offramp-api-key', key)", KEY)
    card = page.locator("#certificate")
    # Its samples are not those of the bundle's table.
    expect(card).to_contain_text("Certificate not verified here")
    expect(card).to_contain_text("It says nothing about the accuracy of the ensemble itself.")
    expect(card).to_contain_text(
        "With 95 % confidence it is at most 1 point less accurate than the ensemble. "
        "Bound: 0.82 points."
    )
    slider(page, "exit 1").fill("0.7")
    expect(card).to_contain_text("These changes lose the certificate")
    for promise in ("95 % confidence", "at most", "Bound", "certified on"):
        expect(card).not_to_contain_text(promise)
    page.get_by_role("button", name="Discard").click()
    expect(card).to_contain_text("Bound: 0.82 points.")
    slider(page, "exit 1").fill("0.7")
    expect(card).to_contain_text("These changes lose the certificate")
    page.get_by_role("button", name="Apply").click()
    expect(card).to_contain_text("Not certified")
    page.get_by_role("button", name="Undo").click()
    expect(card).to_contain_text("Certificate not verified here")
