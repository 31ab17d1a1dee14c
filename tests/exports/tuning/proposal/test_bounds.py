"""A proposal is applied only if the unfavourable ends of its intervals are within the bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exports.bundle.errors import TuningError
from exports.tuning.proposal.bounds import Bounds, out_of_bounds, parse_bounds
from exports.tuning.proposal.effect import Effect
from exports.tuning.statistics.policy_stats import PolicyStats

# 1,000 samples of which the ensemble is right on 8 more: the drop is 0.8 points, at most 1.57.
PROPOSED = PolicyStats(1000, (500, 500), 700, 8, 0)
IN_FORCE = PolicyStats(1000, (600, 400), 698, 10, 0)


def effect(change: float, half: float) -> Effect:
    interval = (change - half, change + half)
    means, changes = {"macs": (1.0, 1 + change)}, {"macs": (change, interval)}
    return Effect(PROPOSED, IN_FORCE, 0.002, (-0.004, 0.008), means, changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("accuracy-drop=0.5,cost-change=0.2", Bounds(0.005, 0.2)),
        ("cost-change=0", Bounds(None, 0.0)),
        (" accuracy-drop=1", Bounds(0.01, None)),
    ],
)
def test_bounds_are_points_and_a_share(text: str, bounds: Bounds) -> None:
    assert parse_bounds(text) == bounds


@pytest.mark.parametrize(
    "text",
    ["", "drop=1", "accuracy-drop", "accuracy-drop=x", "cost-change=-1", "cost-change=nan",
     "cost-change=inf", "cost-change=1,cost-change=2"],
)  # fmt: skip
def test_other_bounds_are_refused(text: str) -> None:
    with pytest.raises(
        TuningError, match=r"must be as in accuracy-drop=0\.5,cost-change=0\.2, not"
    ):
        parse_bounds(text)


@pytest.mark.parametrize(("limit", "applied"), [(0.02, True), (0.01, False)])
def test_the_upper_end_of_the_drop_counts(limit: float, applied: bool) -> None:
    assert PROPOSED.drop < 0.01
    found = out_of_bounds(Bounds(limit), effect(0.1, 0.01), "macs", representative=True)
    assert (found is None) is applied
    if found is not None:
        assert "it may be 1.57 points below the ensemble, and accuracy-drop is 1." in found


@pytest.mark.parametrize(
    ("change", "half", "applied"), [(0.1, 0.05, True), (0.1, 0.11, False), (-0.1, 0.11, False)]
)
def test_the_further_end_of_the_cost_counts_in_both_directions(
    change: float, half: float, applied: bool
) -> None:
    bounds = Bounds(None, 0.2)
    found = out_of_bounds(bounds, effect(change, half), "macs", representative=True)
    assert (found is None) is applied


@pytest.mark.parametrize(("full_depth", "applied"), [(False, False), (True, True)])
def test_no_difference_on_few_samples_is_within_a_bound_at_full_depth_alone(
    full_depth: bool, applied: bool
) -> None:
    same = PolicyStats(30, (0, 30), 20, 0, 0, full_depth=full_depth)
    proposed = replace(effect(0.1, 0.01), proposed=same)
    found = out_of_bounds(Bounds(0.005), proposed, "macs", representative=True)
    assert (found is None) is applied
    if found is not None:
        assert "it may be 11.35 points below the ensemble, and accuracy-drop is 0.5" in found


def test_labels_that_are_no_random_selection_are_out_of_every_bound() -> None:
    found = out_of_bounds(Bounds(0.5, 9.0), effect(0.0, 0.0), "macs", representative=False)
    assert found is not None
    assert "not a random selection" in found
