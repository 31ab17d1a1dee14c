"""A preview judges a policy on samples that it was not chosen on, as far as the table knows."""

from __future__ import annotations

import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest, read_policy
from exports.tuning.goal import Goal, TuningData
from exports.tuning.preview import PolicyPreview
from exports.tuning.select import choose
from tests.exports.bundles import INT8


@pytest.fixture(scope="module")
def preview() -> PolicyPreview:
    return PolicyPreview(INT8, read_manifest(INT8))


@pytest.fixture(scope="module")
def data() -> TuningData:
    manifest = read_manifest(INT8)
    return TuningData.from_bundle(load_table(INT8, manifest), manifest)


def above(data: TuningData) -> float:
    """The points by which full depth, the better of last exit and ensemble, is above the ensemble."""
    last = data.whole.correct["single"][-1].mean()
    ensemble = data.whole.ensemble_correct.mean()
    return float(100 * max(last - ensemble, 0))


def test_a_certified_policy_is_judged_on_the_samples_that_certify_it(
    preview: PolicyPreview, data: TuningData
) -> None:
    policy = read_policy(INT8, read_manifest(INT8))
    found = preview.preview(policy)
    stats = data.certification.evaluate(policy)
    assert (found.estimate, found.samples) == ("certification", 2500)
    assert found.drop == pytest.approx(100 * stats.drop + above(data), abs=1e-3)
    # Costs and shares are those of the whole table, as the curve's.
    assert found.exit_shares == pytest.approx(data.whole.evaluate(policy).exit_shares, abs=1e-5)


def test_a_policy_that_the_search_finds_is_cross_validated(
    preview: PolicyPreview, data: TuningData
) -> None:
    costs = [float(entry.macs) for entry in read_manifest(INT8).exits]
    choice = choose(data, costs, Goal("max_drop", 0.01))
    found = preview.preview(choice.policy)
    low, high = choice.stats.drop_interval(0.95)
    assert (found.estimate, found.samples) == ("cross_validated", 5000)
    assert found.drop == pytest.approx(100 * choice.stats.drop + above(data), abs=1e-3)
    assert found.drop_interval == pytest.approx(
        (100 * low + above(data), 100 * high + above(data)), abs=1e-3
    )
    assert found.accuracy < 100 * data.whole.evaluate(choice.policy).accuracy


def test_any_other_policy_is_judged_on_the_table(preview: PolicyPreview, data: TuningData) -> None:
    policy = Policy(thresholds=(0.5, 0.6, 0.7), max_exit=4)
    found = preview.preview(policy)
    assert (found.estimate, found.samples) == ("table", 5000)
    assert found.accuracy == pytest.approx(100 * data.whole.evaluate(policy).accuracy, abs=1e-3)
    assert found.drop_interval[0] < found.drop < found.drop_interval[1]


def test_every_point_of_a_curve_has_its_interval(preview: PolicyPreview, data: TuningData) -> None:
    policy = read_policy(INT8, read_manifest(INT8))
    curve = preview.tradeoff(policy, "max_prob", "single")
    for point in curve.points:
        low, high = point.drop_interval
        assert low <= curve.full_depth_accuracy - point.accuracy <= high
        assert high - low < 3
