"""Raised thresholds: what replaces them, what is written of them, and the gears that have them."""

from __future__ import annotations

from pathlib import Path

from exports.bundle.gears.plan import write_gears
from exports.bundle.manifest import POLICY
from exports.bundle.policy import Policy
from exports.bundle.reader import read_manifest
from exports.tuning.search import NEVER
from serving.service import Service
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.shadow.conftest import PUT, SHADOW, STATUS, break_promises
from tests.serving.tiny_bundle import POLICY_DEFAULT, write_tiny_bundle
from tests.serving.tiny_gears import tiny_plan, write_tiny_gears


def test_a_policy_that_is_put_stands_until_its_own_promise_is_broken(
    client: Client, pngs: list[bytes]
) -> None:
    break_promises(client, pngs)
    stale = client.put(
        PUT, json=POLICY_DEFAULT.model_dump(mode="json"), headers={"If-Match": '"1"'}
    )
    assert stale.status_code == 412
    answer = client.put(PUT, json=POLICY_DEFAULT.model_dump(mode="json"))
    assert (answer.status_code, answer.json()["revision"]) == (200, 3)
    client.runner.run(client.app.state.service.shadow.update())
    found = client.get(SHADOW).json()[STATUS]
    assert found["raises"] == []
    assert [one["threshold"] for one in found["exits"]] == list(POLICY_DEFAULT.thresholds)
    assert [one["shadows"] for one in found["exits"]] == [0, 0]


def test_a_policy_put_before_the_guard_acts_is_not_raised(
    client: Client, service: Service, pngs: list[bytes]
) -> None:
    break_promises(client, pngs, update=False)
    model = service.models.get("tiny")
    put = POLICY_DEFAULT.model_copy(update={"thresholds": (0.7, 0.7)})
    assert client.put(PUT, json=put.model_dump(mode="json")).status_code == 200
    assert client.runner.run(service.manager.raise_thresholds(model, {1: NEVER})) is None
    client.runner.run(service.shadow.update())  # type: ignore[union-attr]
    assert client.get(PUT).json()["policy"]["thresholds"] == [0.7, 0.7]


def test_a_raise_is_not_written_and_the_bundles_own_change_replaces_it(
    client: Client, service: Service, promising: Path, pngs: list[bytes]
) -> None:
    break_promises(client, pngs)
    written = Policy.model_validate_json((promising / POLICY).read_text())
    assert written == POLICY_DEFAULT
    tuned = POLICY_DEFAULT.model_copy(update={"thresholds": (0.65, 0.65)})
    (promising / POLICY).write_text(tuned.model_dump_json())
    client.runner.run(service.manager.reread_policy(service.models.get("tiny")))
    assert client.get(PUT).json()["policy"]["thresholds"] == [0.65, 0.65]
    assert service.models.get("tiny").raised_from is None


def test_thresholds_are_never_lowered(client: Client, service: Service) -> None:
    model = service.models.get("tiny")
    client.runner.run(service.manager.raise_thresholds(model, {1: 0.1, 2: 0.9}))
    assert client.get(PUT).json()["policy"]["thresholds"] == [0.6, 0.9]
    assert service.models.get("tiny").raised_from == POLICY_DEFAULT


def test_a_raised_policy_has_no_certificate(client: Client, service: Service) -> None:
    certificate = {
        **{"method": "exact-score", "permitted_drop": 0.5, "confidence": 0.95, "bound": 0.1},
        **{"chosen_on": 10, "samples": 10, "split_sha256": "0" * 64, "target": "labels"},
    }
    certified = {**POLICY_DEFAULT.model_dump(mode="json"), "certificate": certificate}
    assert client.put(PUT, json=certified).status_code == 200
    client.runner.run(service.manager.raise_thresholds(service.models.get("tiny"), {1: 0.9}))
    found = client.get(PUT).json()
    assert (found["policy"]["certificate"], found["certificate_verified"]) == (None, None)


def test_gears_have_the_raised_thresholds_or_are_left_out(tmp_path: Path) -> None:
    bundle = write_tiny_gears(write_tiny_bundle(tmp_path / "tiny"))
    settings = Settings(
        bundles=(bundle,),
        workers=1,
        max_queue_ms=10_000,
        target_p99_ms=5_000,
        accuracy_floor=0,
        shadow_share=1.0,
    )
    with running(settings) as client:
        service: Service = client.app.state.service
        early = {"combine": "running", "thresholds": [0.25, 0.25], "max_exit": 3}
        assert client.put(PUT, json=early).status_code == 200
        model = service.models.get("tiny")
        client.runner.run(service.manager.raise_thresholds(model, {1: 2.0}))
        raised = [(2.0, 0.25), (2.0, 0.0)]
        assert thresholds_of_gears(service) == raised
        # A new plan gets them as well, and the policy stays raised.
        plan = tiny_plan(read_manifest(bundle))
        write_gears(bundle, plan.model_copy(update={"gears": plan.gears[1:]}))
        client.runner.run(service.manager.reread_policy(service.models.get("tiny")))
        assert thresholds_of_gears(service) == raised
        assert service.models.get("tiny").raised_from == Policy.model_validate(early)
        single = {**early, "combine": "single"}
        assert client.put(PUT, json=single).status_code == 200
        model = service.models.get("tiny")
        client.runner.run(service.manager.raise_thresholds(model, {1: 2.0}))
        assert thresholds_of_gears(service) == [(2.0, 0.25)]


def thresholds_of_gears(service: Service) -> list[tuple[float, ...]]:
    box = service.models.get("tiny").gears
    assert box is not None
    return [gear.policy.thresholds for gear in box.gears]
