"""Accuracy against coverage of a policy, and promises of precision, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest
from exports.tuning.goal import TuningData
from exports.tuning.selective.certificate import make_precision_certificate
from exports.tuning.simulation import simulate
from serving.settings import Settings
from tests.exports.policies import PRECISION_CERTIFICATE
from tests.serving.conftest import Client, running
from tests.serving.requests import assert_error
from tests.serving.tiny_bundle import write_tiny_bundle

POLICY = "/v1/models/tiny/policy"
COVERAGE = f"{POLICY}/coverage"
OTHER = {"thresholds": [0.2, 0.3], "max_exit": 2, "mode": "early_exit", "measure": "margin"}


@pytest.fixture
def bundle_dir(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "tiny")


@pytest.fixture
def served(bundle_dir: Path) -> Iterator[Client]:
    with running(Settings(bundles=(bundle_dir,), workers=1)) as client:
        yield client


def test_every_point_is_what_a_policy_of_that_limit_answers(
    served: Client, bundle_dir: Path
) -> None:
    manifest = read_manifest(bundle_dir)
    table = load_table(bundle_dir, manifest)
    outcome = simulate(Policy.model_validate(OTHER), table.logits, manifest.scaling)
    found = served.post(COVERAGE, json={**OTHER, "reject_below": 0.5}).json()
    assert (found["samples"], found["estimate"]) == (len(table.labels), "table")
    assert found["policy"]["reject_below"] == 0.5
    for point in (found["policy"], *found["points"]):
        answered = outcome.confidence >= np.float32(point["reject_below"])
        assert point["coverage"] == pytest.approx(100 * answered.mean(), abs=1e-3)
        if answered.any():
            right = (outcome.predictions == table.labels)[answered]
            assert point["precision"] == pytest.approx(100 * right.mean(), abs=1e-3)
            low, high = point["precision_interval"]
            assert low <= point["precision"] <= high
        else:
            assert point["precision"] is None
    covered = [point["coverage"] for point in found["points"]]
    assert covered == sorted(covered)
    assert covered[-1] == 100
    assert found["points"][-1]["reject_below"] == 0


def test_a_certified_policy_is_measured_on_the_half_that_certifies_it(
    served: Client, bundle_dir: Path
) -> None:
    policy = certified(bundle_dir)
    answer = served.put(POLICY, json=policy)
    assert answer.status_code == 200, answer.json()
    assert answer.json()["policy"]["precision_certificate"] == policy["precision_certificate"]
    found = served.post(COVERAGE, json=policy).json()
    assert found["estimate"] == "certification"
    assert found["samples"] == policy["precision_certificate"]["samples"]
    answered = policy["precision_certificate"]["answered"]
    assert found["policy"]["coverage"] == pytest.approx(100 * answered / found["samples"])
    preview = served.post(f"{POLICY}/preview", json=policy).json()
    assert preview["estimate"] == "certification"


def certified(bundle_dir: Path) -> dict[str, Any]:
    """A policy with a promise that the table of the bundle supports, however weak."""
    manifest = read_manifest(bundle_dir)
    table = load_table(bundle_dir, manifest)
    data = TuningData.from_bundle(table, manifest)
    policy = Policy.model_validate({**OTHER, "reject_below": 0.0})
    (stats,) = data.certification.answers(policy).above(np.zeros(1))
    assert stats.correct > 0
    promise = make_precision_certificate(
        stats, 0.0, 0.001, 0.6, data.selection.samples, data.split_sha256
    )
    return policy.model_copy(update={"precision_certificate": promise}).model_dump(mode="json")


def test_a_precision_that_the_table_refutes_is_refused(served: Client, bundle_dir: Path) -> None:
    policy = certified(bundle_dir)
    policy["precision_certificate"]["bound"] = 0.99
    assert_error(served.put(POLICY, json=policy), 400, "invalid_request", "does not follow")
    assert served.get(POLICY).json()["revision"] == 1


def test_another_reject_below_needs_the_promise_to_go(served: Client) -> None:
    promise = PRECISION_CERTIFICATE.model_dump(mode="json")
    moved = {**OTHER, "reject_below": 0.5, "precision_certificate": promise}
    says = "precision_certificate is for reject_below 0.75, not 0.5"
    assert_error(served.put(POLICY, json=moved), 400, "invalid_request", says)
    assert_error(served.post(COVERAGE, json=moved), 400, "invalid_request", says)
    kept = {**moved, "reject_below": 0.75}
    assert served.put(POLICY, json=kept).status_code == 200
    assert served.put(POLICY, json={**moved, "precision_certificate": None}).status_code == 200


def test_coverage_needs_a_policy_that_fits(served: Client) -> None:
    short = served.post(COVERAGE, json={"thresholds": [0.1], "max_exit": 1})
    assert_error(short, 400, "invalid_request", "needs 2 thresholds")
    unknown = served.post(COVERAGE.replace("tiny", "none"), json=OTHER)
    assert_error(unknown, 404, "not_found")
