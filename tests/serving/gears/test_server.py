"""A server with a latency target: what gears change, what they leave alone, and what is refused."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exports.bundle.errors import BundleError
from exports.bundle.gears.plan import write_gears
from exports.bundle.policy import Policy
from exports.bundle.reader import read_manifest
from serving.errors import SettingsError
from serving.service import Service
from serving.settings import Settings, read_settings
from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.conftest import Client, running
from tests.serving.gears.conftest import TARGET_MS
from tests.serving.requests import CLASSIFY, as_json, as_raw, assert_error, metrics
from tests.serving.tiny_bundle import write_tiny_bundle
from tests.serving.tiny_gears import FULL_DEPTH, THRESHOLDS, full_depth_accuracy, tiny_plan

GEARS = "/v1/models/tiny/gears"
POLICY = "/v1/models/tiny/policy"
GAUGE = 'offramp_gear{model="tiny"}'
FIRST_EXIT = {"combine": "running", "thresholds": [0.0, 0.0], "max_exit": 3}


def shift(service: Service) -> None:
    """Have the controller see busy workers, and answers later than the target: it shifts down by one gear."""
    assert service.gears is not None
    model, now = service.models.get("tiny"), time.monotonic()
    watched = service.gears._watched["tiny"]
    watched.state = replace(watched.state, at=now - 0.1, slow=100.0, work=1.0, done=10.0)
    for _ in range(200):
        service.gears.answered(model, now, 2 * TARGET_MS / 1000)
    service.gears.update(now)


def exits(answer: Any) -> set[int]:
    assert answer.status_code == 200, answer.text
    return {prediction["exit"] for prediction in answer.json()["predictions"]}


def test_without_a_target_there_are_no_gears(geared: Path) -> None:
    with running(Settings(bundles=(geared,), workers=1)) as client:
        assert client.get(GEARS).json() == {
            "sentence": "No latency target is set.",
            "status": None,
        }
        assert GAUGE not in metrics(client)


def test_the_policy_in_force_is_gear_0_and_cheaper_gears_follow(client: Client) -> None:
    found = client.get(GEARS).json()
    status = found["status"]
    assert (status["gear"], status["target_p99_ms"], status["shifts"]) == (0, TARGET_MS, [])
    assert [gear["policy"]["thresholds"] for gear in status["gears"]] == list(map(list, THRESHOLDS))
    assert found["sentence"].startswith("Gear 0 of 0 to 2: ")
    assert status["verified"] is False  # written by hand
    assert f"{GAUGE} 0.0" in metrics(client)
    assert client.get("/v1/models/x/gears").status_code == 404


def test_a_shift_changes_where_images_leave_and_is_shown(
    client: Client, service: Service, pngs: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    sent = as_json(pngs[:8])
    assert exits(client.post(CLASSIFY, **sent)) == {3}
    with caplog.at_level(logging.INFO, "offramp.gears"):
        shift(service)
    assert exits(client.post(CLASSIFY, **sent)) == {2}
    status = client.get(GEARS).json()["status"]
    (shown,) = status["shifts"]
    assert status["gear"] == 1
    assert (shown["before"], shown["after"], shown["reason"]) == (0, 1, "p99")
    assert f"{GAUGE} 1.0" in metrics(client)
    assert 'offramp_gear_shifts_total{direction="down",model="tiny"} 1.0' in metrics(client)
    assert "tiny: gear 0 to 1 of 2 for p99" in caplog.text


def test_every_form_of_request_is_answered_in_gear(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    shift(service)
    stream = client.post("/v1/classify/stream", **as_raw(pngs[0])).text
    answer = next(part for part in stream.split("\n\n") if part.startswith("event: answer"))
    assert json.loads(answer.split("data: ")[1])["predictions"][0]["exit"] == 2
    outputs = client.post(INFER, json=request_of(pngs[:1])).json()["outputs"]
    assert next(o["data"] for o in outputs if o["name"] == "exit") == [2]


@pytest.mark.parametrize("query", ["threshold=2", "mode=ensemble", "max_exit=3", "priority=low"])
def test_requests_with_options_of_their_own_and_of_low_priority_have_no_gears(
    client: Client, service: Service, pngs: list[bytes], query: str
) -> None:
    shift(service)
    assert exits(client.post(f"{CLASSIFY}?{query}", **as_raw(pngs[0]))) == {3}


def test_a_request_that_may_be_unsure_is_answered_in_gear(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    shift(service)
    (found,) = client.post(f"{CLASSIFY}?reject_below=1", **as_raw(pngs[0])).json()["predictions"]
    assert (found["exit"], found["reason"]) == (2, "unsure")


def test_gears_keep_the_limit_of_unsure_answers_of_the_policy_in_force(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    client.put(POLICY, json={**FULL_DEPTH.model_dump(), "reject_below": 1.0})
    service.gears.update(time.monotonic())  # type: ignore[union-attr]
    shift(service)
    (found,) = client.post(CLASSIFY, **as_raw(pngs[0])).json()["predictions"]
    assert (found["exit"], found["reason"]) == (2, "unsure")


def test_late_answers_of_idle_workers_shift_nothing(client: Client, service: Service) -> None:
    """Photos that take long to decode, for example."""
    model, now = service.models.get("tiny"), time.monotonic()
    for _ in range(200):
        service.gears.answered(model, now, 2 * TARGET_MS / 1000)  # type: ignore[union-attr]
    service.gears.update(now)  # type: ignore[union-attr]
    status = client.get(GEARS).json()["status"]
    assert (status["gear"], status["p99_ms"]) == (0, 2 * TARGET_MS)


def test_only_answers_of_normal_priority_count_for_the_p99(
    client: Client, service: Service, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []
    monkeypatch.setattr(
        service.gears, "answered", lambda model, now, seconds: counted.append(seconds)
    )
    client.post(f"{CLASSIFY}?priority=low", **as_raw(pngs[0]))
    assert counted == []
    client.post(CLASSIFY, **as_raw(pngs[0]))
    client.post("/v1/classify/stream", **as_raw(pngs[0]))
    client.post(INFER, json=request_of(pngs[:1]))
    assert len(counted) == 3
    assert all(0 < seconds < TARGET_MS for seconds in counted)


def test_only_answers_of_gear_0_are_tested_for_drift(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    observed: list[int] = []
    service.drift.observe = lambda model, found: observed.append(len(found))  # type: ignore[method-assign]
    client.post(CLASSIFY, **as_json(pngs[:2]))
    shift(service)
    client.post(CLASSIFY, **as_json(pngs[:4]))
    assert observed == [2]


def test_a_policy_that_is_put_becomes_gear_0(client: Client, service: Service) -> None:
    shift(service)
    answer = client.put(POLICY, json={**FIRST_EXIT, "thresholds": [2.0, 0.0]})
    assert (answer.status_code, answer.json()["revision"]) == (200, 2)
    service.gears.update(time.monotonic())  # type: ignore[union-attr]
    status = client.get(GEARS).json()["status"]
    assert (status["gear"], status["shifts"]) == (0, [])
    # The others are those of the plan that cost less.
    assert [gear["policy"]["thresholds"] for gear in status["gears"]] == [[2.0, 0.0], [0.0, 0.0]]


def test_a_shift_is_no_revision(client: Client, service: Service) -> None:
    shift(service)
    found = client.get(POLICY).json()
    assert (found["revision"], found["policy"]["thresholds"]) == (1, [2.0, 2.0])


def test_a_policy_below_the_floor_is_refused(geared: Path, serve: Callable[..., Any]) -> None:
    with serve(geared, full_depth_accuracy(geared) - 0.01) as client:
        refused = client.put(POLICY, json=FIRST_EXIT)
        assert_error(refused, 409, "below_floor", "below the accuracy floor")
        assert client.get(POLICY).json()["revision"] == 1
        client.app.state.service.gears.update(time.monotonic())
        assert len(client.get(GEARS).json()["status"]["gears"]) == 1


@pytest.mark.parametrize("floor", [99.0])
def test_a_server_whose_policy_is_below_the_floor_does_not_start(
    geared: Path, serve: Callable[..., Any], floor: float
) -> None:
    with pytest.raises(BundleError, match="below the accuracy floor of 99 %"), serve(geared, floor):
        pass


def test_a_target_needs_a_plan(tmp_path: Path, serve: Callable[..., Any]) -> None:
    bundle = write_tiny_bundle(tmp_path / "plain")
    with (
        pytest.raises(BundleError, match=r"has no gears.json.*offramp tune .* --gears"),
        serve(bundle),
    ):
        pass


def test_a_plan_that_the_table_contradicts_is_not_served(
    geared: Path, serve: Callable[..., Any]
) -> None:
    plan = tiny_plan(read_manifest(geared))
    cheap = plan.gears[-1].model_copy(update={"mean_macs": 500.0})
    write_gears(geared, plan.model_copy(update={"gears": (*plan.gears[:-1], cheap)}))
    with pytest.raises(BundleError, match="Gear 2 does not follow"), serve(geared):
        pass


def test_a_plan_that_changes_on_the_disk_is_followed(
    client: Client, service: Service, geared: Path
) -> None:
    plan = tiny_plan(read_manifest(geared))
    write_gears(geared, plan.model_copy(update={"gears": plan.gears[:2]}))
    client.runner.run(service.manager.reread_policy(service.models.get("tiny")))
    service.gears.update(time.monotonic())  # type: ignore[union-attr]
    assert len(client.get(GEARS).json()["status"]["gears"]) == 2
    assert client.get(POLICY).json()["revision"] == 1


def test_a_certified_policy_is_gear_0_too(client: Client) -> None:
    """Its certificate is of other samples, so it is not checked here."""
    certificate = {
        **{"method": "exact-score", "permitted_drop": 0.5, "confidence": 0.95, "bound": 0.1},
        **{"chosen_on": 10, "samples": 10, "split_sha256": "0" * 64, "target": "labels"},
    }
    policy = Policy.model_validate({**FULL_DEPTH.model_dump(), "certificate": certificate})
    assert client.put(POLICY, json=policy.model_dump(mode="json")).status_code == 200


@pytest.mark.parametrize(
    "flags", [{"target_p99_ms": 100.0}, {"accuracy_floor": 60.0}, {"target_p99_ms": 0.0}]
)
def test_target_and_floor_go_together(flags: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"go together|target_p99_ms is not valid"):
        read_settings(**flags)


def test_a_target_beyond_the_longest_wait_is_refused() -> None:
    with pytest.raises(SettingsError, match="must be below max_queue_ms"):
        read_settings(target_p99_ms=500.0, accuracy_floor=60.0)
