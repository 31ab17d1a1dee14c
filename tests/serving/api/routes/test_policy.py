"""Reading, previewing and changing the policy while serving."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle, load_table, read_manifest
from exports.tuning.goal import TuningData
from exports.tuning.simulation import simulate
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.requests import as_raw, assert_error, metrics
from tests.serving.tiny_bundle import EXITS, write_tiny_bundle

POLICY = "/v1/models/tiny/policy"
PREVIEW = "/v1/models/tiny/policy/preview"
TRADEOFF = "/v1/models/tiny/tradeoff"
OTHER = {"thresholds": [0.2, 0.3], "max_exit": 2, "mode": "early_exit", "measure": "margin"}


@pytest.fixture
def bundle_dir(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def served(bundle_dir: Path) -> Iterator[Client]:
    with running(Settings(bundles=(bundle_dir,), workers=1)) as client:
        yield client


def test_a_changed_policy_is_in_force_at_once(served: Client, pngs: list[bytes]) -> None:
    never = {"thresholds": [2, 2], "max_exit": EXITS}
    answer = served.put(POLICY, json=never)
    assert answer.status_code == 200
    assert answer.headers["ETag"] == '"2"'
    assert answer.json() == served.get(POLICY).json()
    assert answer.json()["policy"]["thresholds"] == [2, 2]
    exits = {
        served.post("/v1/classify", **as_raw(png)).json()["predictions"][0]["exit"] for png in pngs
    }
    assert exits == {EXITS}
    shown = metrics(served)
    assert 'offramp_policy_revision{model="tiny"} 2.0' in shown
    assert 'offramp_threshold{exit="1",model="tiny"} 2.0' in shown


@pytest.mark.parametrize("if_match", ['"1"', "*", '"7", "1"'])
def test_a_change_may_insist_on_the_revision_it_read(served: Client, if_match: str) -> None:
    answer = served.put(POLICY, json=OTHER, headers={"If-Match": if_match})
    assert answer.json()["revision"] == 2


@pytest.mark.parametrize("if_match", ['"1"', "2", 'W/"2"', '""'])
def test_a_change_of_another_revision_is_refused(served: Client, if_match: str) -> None:
    assert served.put(POLICY, json=OTHER).json()["revision"] == 2
    before = served.get(POLICY).json()
    refused = served.put(POLICY, json={**OTHER, "max_exit": 1}, headers={"If-Match": if_match})
    assert_error(refused, 412, "revision_conflict", "revision 2")
    assert served.get(POLICY).json() == before


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{", "not valid JSON"),
        (b'{"mode": "\xff"}', "not valid JSON"),
        ("[" * 60_000, "not valid JSON"),
        ('{"max_exit": %s}' % ("9" * 5000), "not valid JSON"),
        ("[]", "body is not valid"),
        ("{}", "thresholds"),
        ('{"thresholds": [0.1], "max_exit": 1}', "needs 2 thresholds"),
        ('{"thresholds": [0.1, -1], "max_exit": 1}', "thresholds.1"),
        ('{"thresholds": [0.1, NaN], "max_exit": 1}', "thresholds.1"),
        ('{"thresholds": [0.1, 0.1], "max_exit": 4}', "max_exit is 4, but there are 3 exits"),
        ('{"thresholds": [0.1, 0.1], "max_exit": 1, "mode": "guess"}', "mode"),
        ('{"thresholds": [0.1, 0.1], "max_exit": 1, "colour": "red"}', "colour"),
    ],
)
@pytest.mark.parametrize("method", ["put", "post"])
def test_an_invalid_policy_is_refused_in_a_sentence(
    served: Client, body: str | bytes, says: str, method: str
) -> None:
    url = POLICY if method == "put" else PREVIEW
    send = served.put if method == "put" else served.post
    answer = send(url, content=body, headers={"Content-Type": "application/json"})
    assert_error(answer, 400, "invalid_request", says)
    assert served.get(POLICY).json()["revision"] == 1


def test_a_certificate_that_the_table_refutes_is_refused(served: Client, bundle_dir: Path) -> None:
    manifest = read_manifest(bundle_dir)
    data = TuningData.from_bundle(load_table(bundle_dir, manifest), manifest)
    invented = {
        "method": "exact-trinomial",
        "permitted_drop": 0.5,
        "confidence": 0.95,
        "bound": 0.1,
        "chosen_on": 10,
        "samples": 10,
        "split_sha256": data.split_sha256,
        "target": "labels",
    }
    answer = served.put(POLICY, json={**OTHER, "certificate": invented})
    assert_error(answer, 400, "invalid_request")
    assert "does not follow" in answer.json()["error"]
    assert served.get(POLICY).json()["revision"] == 1


def test_a_certificate_that_cannot_be_checked_is_refused(served: Client, bundle_dir: Path) -> None:
    (bundle_dir / "calibration.npz").unlink()
    certificate = {
        **{"method": "exact-trinomial", "permitted_drop": 0.5, "confidence": 0.95, "bound": 0.1},
        **{"chosen_on": 10, "samples": 10, "split_sha256": "0" * 64, "target": "labels"},
    }
    answer = served.put(POLICY, json={**OTHER, "certificate": certificate})
    assert_error(answer, 409, "bad_bundle", "calibration.npz")


def test_a_policy_of_megabytes_is_not_read(served: Client) -> None:
    answer = served.post(
        PREVIEW, content=b" " * 70_000, headers={"Content-Type": "application/json"}
    )
    assert_error(answer, 413, "too_large", "65536")


def test_a_persisted_policy_survives_a_restart(served: Client, bundle_dir: Path) -> None:
    assert served.put(f"{POLICY}?persist=true", json=OTHER).status_code == 200
    assert Policy.model_validate_json((bundle_dir / "policy.json").read_text()) == Policy(**OTHER)
    assert load_bundle(bundle_dir).policy == Policy(**OTHER)
    with running(Settings(bundles=(bundle_dir,), workers=1)) as again:
        assert again.get(POLICY).json()["policy"] == served.get(POLICY).json()["policy"]


def test_without_persist_the_bundle_stays_as_it_was(served: Client, bundle_dir: Path) -> None:
    before = (bundle_dir / "policy.json").read_bytes()
    served.put(POLICY, json=OTHER)
    assert (bundle_dir / "policy.json").read_bytes() == before


def test_a_policy_that_cannot_be_written_changes_nothing(
    served: Client, bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (bundle_dir / "policy.json").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused = served.put(f"{POLICY}?persist=true", json=OTHER)
    assert_error(refused, 409, "not_persisted", "No space left on device")
    assert served.get(POLICY).json()["revision"] == 1
    assert (bundle_dir / "policy.json").read_bytes() == before
    assert not list(bundle_dir.glob("*.part"))


def test_a_policy_is_not_written_into_another_bundle(served: Client, bundle_dir: Path) -> None:
    manifest = json.loads((bundle_dir / "manifest.json").read_text())
    (bundle_dir / "manifest.json").write_text(json.dumps({**manifest, "version": "2"}))
    refused = served.put(f"{POLICY}?persist=true", json=OTHER)
    assert_error(refused, 409, "not_persisted", "not the one that is loaded")


# What a policy would do


def outcome(bundle_dir: Path, policy: Policy) -> tuple[float, float]:
    """Accuracy in percent and mean MACs of `policy`, computed without the server."""
    manifest = read_manifest(bundle_dir)
    table = load_table(bundle_dir, manifest)
    found = simulate(policy, table.logits, manifest.scaling)
    return 100 * found.accuracy(table.labels), found.mean_cost([e.macs for e in manifest.exits])


def test_a_preview_is_the_simulation_on_the_calibration_table(
    served: Client, bundle_dir: Path
) -> None:
    answer = served.post(PREVIEW, json=OTHER).json()
    assert list(answer) == [
        *("samples", "estimate", "accuracy", "drop", "drop_interval"),
        *("mean_macs", "mean_ms", "exit_shares"),
    ]
    assert answer["estimate"] == "table"
    assert answer["drop_interval"][0] < answer["drop"] < answer["drop_interval"][1]
    accuracy, macs = outcome(bundle_dir, Policy(**OTHER))
    assert answer["accuracy"] == pytest.approx(accuracy, abs=1e-3)
    assert answer["mean_macs"] == pytest.approx(macs, abs=0.1)
    ensemble, _ = outcome(bundle_dir, Policy(mode="ensemble", thresholds=(0.5, 0.5), max_exit=3))
    assert answer["drop"] == pytest.approx(ensemble - accuracy, abs=1e-3)
    assert answer["samples"] == 20
    assert answer["mean_ms"] > 0
    assert sum(answer["exit_shares"]) == pytest.approx(1, abs=1e-4)
    assert served.get(POLICY).json()["revision"] == 1


def test_the_tradeoff_goes_from_the_first_exit_to_the_last(
    served: Client, bundle_dir: Path
) -> None:
    found = served.get(TRADEOFF).json()
    points = found["points"]
    assert (found["model"], found["split"], found["samples"]) == ("tiny", "held_out", 20)
    assert (found["measure"], found["combine"]) == ("max_prob", "single")
    costs = [point["mean_macs"] for point in points]
    assert costs == sorted(costs)
    assert points[0]["exit_shares"] == [1, 0, 0]
    assert points[-1]["exit_shares"] == [0, 0, 1]
    assert points[0]["accuracy"] == found["exit_accuracy"][0]
    assert points[-1]["accuracy"] == found["exit_accuracy"][-1]
    ensemble, _ = outcome(bundle_dir, Policy(mode="ensemble", thresholds=(0.5, 0.5), max_exit=3))
    assert found["full_depth_accuracy"] == pytest.approx(ensemble, abs=1e-3)
    assert found["policy"] == served.post(PREVIEW, json=served.get(POLICY).json()["policy"]).json()


def test_every_point_of_the_tradeoff_is_what_its_policy_would_do(served: Client) -> None:
    found = served.get(f"{TRADEOFF}?measure=entropy&combine=running").json()
    for point in found["points"][::7]:
        shared: dict[str, Any] = {
            "measure": "entropy",
            "combine": "running",
            "thresholds": [point["threshold"]] * (EXITS - 1),
            "max_exit": EXITS,
        }
        preview = served.post(PREVIEW, json=shared).json()
        assert {key: preview[key] for key in point if key != "threshold"} == {
            key: point[key] for key in point if key != "threshold"
        }


def test_reckoning_on_a_table_that_was_changed_is_refused(served: Client, bundle_dir: Path) -> None:
    np.savez(bundle_dir / "calibration.npz", logits=np.zeros((3, 20, 7)), labels=np.zeros(20))
    assert_error(served.get(TRADEOFF), 409, "bad_bundle", "calibration.npz is damaged")


@pytest.mark.parametrize("query", ["measure=size", "combine=all", "colour=red"])
def test_a_wrong_parameter_of_the_tradeoff_is_named(served: Client, query: str) -> None:
    assert_error(served.get(f"{TRADEOFF}?{query}"), 400, "invalid_request", query.split("=")[0])


def test_routes_of_an_unknown_model_are_not_found(served: Client) -> None:
    for answer in (
        served.put("/v1/models/x/policy", json=OTHER),
        served.post("/v1/models/x/policy/preview", json=OTHER),
        served.get("/v1/models/x/tradeoff"),
    ):
        assert_error(answer, 404, "not_found")
