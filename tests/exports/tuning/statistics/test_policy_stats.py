"""The drop of a policy is certain only where it answers as the ensemble whatever the sample."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from exports.bundle.policy import Floats, Policy, Scaling
from exports.bundle.reader import Table
from exports.tuning.search import NEVER, PolicyEvaluator, full_depth, never_early
from exports.tuning.statistics.policy_stats import is_full_depth
from tests.exports.policies import EXITS, policies, scalings, tables


@given(policies, tables, scalings)
def test_full_depth_is_never_left_early_and_answers_as_the_ensemble(
    policy: Policy, logits: Floats, scaling: Scaling
) -> None:
    labels = logits.sum(axis=0).argmax(axis=-1)
    evaluator = PolicyEvaluator.from_table(Table(logits, labels), scaling)
    stats = evaluator.evaluate(policy)
    assert stats.full_depth == is_full_depth(policy)
    if stats.full_depth:
        assert stats.exit_counts[-1] == stats.samples
        assert (stats.losses, stats.gains) == (0, 0)
        assert stats.drop_interval(0.95) == (0, 0)
    else:
        assert stats.drop_interval(0.95) != (0, 0)


@pytest.mark.parametrize("policy", [full_depth(EXITS), never_early(EXITS), full_depth(1)])
def test_the_ensemble_of_all_exits_is_full_depth(policy: Policy) -> None:
    assert is_full_depth(policy)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "exit"},
        {"mode": "ensemble", "max_exit": EXITS - 1},
        {"combine": "single"},
        {"combine": "running", "thresholds": (NEVER,) * (EXITS - 2) + (0.999999,)},
    ],
)
def test_no_other_policy_is(settings: dict[str, Any]) -> None:
    never = {"thresholds": (NEVER,) * (EXITS - 1), "max_exit": EXITS}
    assert not is_full_depth(Policy.model_validate(never | settings))
