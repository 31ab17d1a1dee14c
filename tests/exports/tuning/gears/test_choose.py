"""Gears lie on the tuned front, and a plan that the table contradicts is refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from exports.bundle.errors import BundleError
from exports.bundle.gears.plan import Gear, GearPlan
from exports.bundle.manifest import Manifest
from exports.bundle.reader import load_bundle, read_manifest
from exports.tuning.gears.choose import MIN_STEP, plan_gears, verify_gears
from exports.tuning.goal import TuningData
from exports.tuning.scaling import fit_scaling
from tests.commands import call
from tests.exports.tuning.exits import SOURCE, table
from tests.serving.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Three exits, which cost 1,000, 2,000 and 3,000 MACs."""
    return read_manifest(write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture(scope="module")
def data() -> TuningData:
    samples = table(1000)
    return TuningData.from_table(samples, fit_scaling(samples.take(np.arange(500))), SOURCE)


@pytest.fixture(scope="module")
def plan(data: TuningData, manifest: Manifest) -> GearPlan:
    return plan_gears(data, manifest)


def test_gears_go_from_the_most_accurate_policy_to_the_first_exit_in_steps(
    plan: GearPlan, data: TuningData
) -> None:
    path = data.candidates([1000.0, 2000.0, 3000.0])
    most = max(100 * candidate.stats.accuracy for candidate in path)
    assert plan.gears[0].accuracy >= round(most, 4)
    assert plan.gears[-1].mean_macs * (1 - MIN_STEP) < 1000
    assert len(plan.gears) > 4
    for dearer, cheaper in pairwise(plan.gears):
        assert cheaper.mean_macs <= (1 - MIN_STEP) * dearer.mean_macs + 0.1
        assert cheaper.accuracy <= dearer.accuracy


def test_accuracies_are_of_samples_that_the_gear_was_not_chosen_on(
    plan: GearPlan, data: TuningData
) -> None:
    candidates = {found.policy: found.stats for found in data.candidates([1000.0, 2000.0, 3000.0])}
    lower = 0
    for gear in plan.gears[1:]:
        stats = candidates[gear.policy]
        assert gear.accuracy == pytest.approx(100 * stats.accuracy, abs=1e-3)
        low, high = (100 * (stats.ensemble_accuracy - drop) for drop in stats.drop_interval(0.95))
        assert gear.accuracy_interval == pytest.approx((high, low), abs=1e-3)
        lower += gear.accuracy < 100 * data.whole.evaluate(gear.policy).accuracy
    assert lower > len(plan.gears) / 2


def test_a_plan_is_verified_by_choosing_it_again(
    plan: GearPlan, data: TuningData, manifest: Manifest
) -> None:
    assert verify_gears(plan, data, manifest)
    shorter = plan.model_copy(update={"gears": plan.gears[:-1]})
    assert not verify_gears(shorter, data, manifest)


@pytest.mark.parametrize(
    "change",
    [
        {"mean_macs": 1500.0},
        {"exit_shares": (0.0, 1.0, 0.0)},
        {"accuracy": 100.0, "accuracy_interval": (99.9, 100.0)},
    ],
)
def test_a_plan_that_the_table_contradicts_is_refused(
    plan: GearPlan, data: TuningData, manifest: Manifest, change: dict[str, object]
) -> None:
    last: Gear = plan.gears[-1].model_copy(update=change)
    lying = plan.model_copy(update={"gears": (*plan.gears[:-1], last)})
    with pytest.raises(BundleError, match=f"Gear {len(plan.gears) - 1} does not follow"):
        verify_gears(lying, data, manifest)


def test_tune_writes_gears_beside_the_policy(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    assert call("tune", bundle, "--gears", "--dry-run").code == 0
    assert load_bundle(bundle).gears is None
    done = call("tune", bundle, "--gears")
    assert done.code == 0
    assert "95 % interval" in done.out
    plan = load_bundle(bundle).gears
    assert plan is not None
    assert plan.samples == 20


def test_gears_are_of_the_bundles_own_table(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    refused = call("tune", bundle, "--gears", "--from", tmp_path)
    assert refused.code == 2
    assert "does not go with --from" in refused.err
