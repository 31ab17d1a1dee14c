"""The simulated requests of the guards' benchmark, and the server's run beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.guards.section import draw
from benchmarks.guards.server import EVERY
from benchmarks.guards.simulation import LOOK, Exits, raises_of, replayed
from benchmarks.harness.docs import DOCS
from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle, load_table
from exports.tuning.search import NEVER
from exports.tuning.simulation import simulate
from serving.shadow.checks import PolicyCheck
from serving.shadow.promises import Promise

POLICY = Policy(thresholds=(0.8, 0.7), max_exit=3)
PROMISES = (Promise(1, 100, 0.99, 0.95), Promise(2, 100, 0.99, 0.95))
RESULT = json.loads((DOCS.parent / "benchmarks" / "guards.json").read_text("utf-8"))


def check() -> PolicyCheck:
    return PolicyCheck(PROMISES, POLICY.thresholds)


def exits_that_agree(share: float, images: int = 500) -> Exits:
    """Half of the images leave at exit 1, the others at exit 3; `share` of the former agree."""
    rng = np.random.default_rng(0)
    measured = np.where(np.arange(images) % 2, 0.8 + 0.2 * rng.random((3, images)), 0.1)
    return Exits(measured.astype(np.float32), rng.random((3, images)) < share)


def test_images_leave_where_the_policy_says(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    table = load_table(bundle_path, bundle.manifest)
    policy, scaling = bundle.policy, bundle.manifest.scaling
    exits = Exits.of_logits(table.logits, policy, scaling)
    left = exits.left_at(np.arange(table.logits.shape[1]), list(policy.thresholds))
    found = simulate(policy, table.logits, scaling)
    assert left.tolist() == found.exits.tolist()
    assert exits.agrees[-1].mean() <= 1


def test_a_broken_exit_is_raised_and_then_less_leaves() -> None:
    thresholds = list(POLICY.thresholds)
    found = list(raises_of(exits_that_agree(0.7), check(), thresholds, 0.2, 20_000, seed=0))
    (first, raises) = found[0]
    assert first % LOOK == 0
    assert first < 5_000
    assert raises[0].exit_ == 1
    assert thresholds[0] > POLICY.thresholds[0]
    assert thresholds[1] >= POLICY.thresholds[1]


@pytest.mark.parametrize(("agreement", "share"), [(1.0, 0.5), (0.0, 0.0)])
def test_nothing_is_raised_without_shadows_that_differ(agreement: float, share: float) -> None:
    thresholds = list(POLICY.thresholds)
    exits = exits_that_agree(agreement)
    assert list(raises_of(exits, check(), thresholds, share, 5_000, seed=0)) == []
    assert thresholds == list(POLICY.thresholds)


def test_requests_in_a_given_order_are_all_checked() -> None:
    order = np.arange(500)
    good, bad = exits_that_agree(1.0), exits_that_agree(0.0)
    found = replayed([(good, order), (bad, order)], check(), list(POLICY.thresholds))
    assert found is not None
    assert 500 < found < 600
    never = replayed([(bad, order)], check(), [NEVER, NEVER])
    assert never is None


def test_server_and_simulation_agree_on_when_the_first_threshold_is_raised() -> None:
    """The server is asked every EVERY requests, and looks twice a second."""
    server = RESULT["server"]
    assert 0 <= server["first_raise"] - server["simulated"] < 2 * EVERY + 100


def test_clean_images_raise_nothing_and_every_broken_promise_is_reported() -> None:
    clean, *changed = RESULT["rows"]
    assert set(clean["raised"]) == {None}
    promised = RESULT["promises"].values()
    broken = [
        row
        for row in changed
        if any(value < least for value, least in zip(row["agreement"], promised, strict=True))
    ]
    assert broken
    assert all(None not in row["drift"] for row in broken)
    assert all(row["drop"] <= RESULT["permitted_drop"] for row in changed)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(RESULT, tmp_path / "shadow.png")
    assert (tmp_path / "shadow.png").stat().st_size > 1000
