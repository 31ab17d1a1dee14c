"""The expected effect of a proposal holds on samples that it was not chosen on."""

from __future__ import annotations

import numpy as np
import pytest

from exports.bundle.policy import Policy
from exports.tuning.goal import Goal, TuningData
from exports.tuning.proposal.effect import expected_effect, interval_of
from exports.tuning.search import PolicyEvaluator
from exports.tuning.select import choose
from tests.exports.tuning.exits import COSTS, halved

IN_FORCE = Policy(combine="running", thresholds=(0.8, 0.7), max_exit=3)
UNIT = {"macs": COSTS}


def drawn(population: PolicyEvaluator, count: int, seed: int = 0) -> TuningData:
    rows = np.random.default_rng(seed).choice(population.samples, count, replace=False)
    return halved(population.take(rows))


@pytest.mark.parametrize("goal", [Goal("max_drop", 0.02), Goal("max_drop", 0.03, 0.9)])
def test_changes_are_those_between_the_two_policies(synthetic: PolicyEvaluator, goal: Goal) -> None:
    data = drawn(synthetic, 2000)
    choice = choose(data, COSTS, goal)
    effect = expected_effect(data, choice, IN_FORCE, UNIT)
    measured = data.certification if choice.certified else data.whole
    assert effect.proposed == choice.stats
    assert effect.in_force == measured.evaluate(IN_FORCE)
    difference = effect.proposed.accuracy - effect.in_force.accuracy
    assert effect.accuracy_change == pytest.approx(difference)
    low, high = effect.accuracy_interval
    assert low < effect.accuracy_change < high
    change, (least, most) = effect.cost_changes["macs"]
    costs = effect.proposed.mean_cost(COSTS) / effect.in_force.mean_cost(COSTS)
    assert change == pytest.approx(costs - 1)
    assert least < change < most
    low, high = interval_of(effect.proposed)
    assert low < effect.proposed.accuracy < high


def test_the_policy_in_force_proposed_again_changes_nothing(synthetic: PolicyEvaluator) -> None:
    data = drawn(synthetic, 2000)
    choice = choose(data, COSTS, Goal("max_drop", 0.03, 0.9))
    effect = expected_effect(data, choice, choice.policy, UNIT)
    assert effect.accuracy_change == 0
    assert effect.cost_changes["macs"] == (0, (0, 0))


@pytest.mark.usefixtures("coarse")
def test_the_effect_is_honest_on_new_samples(synthetic: PolicyEvaluator) -> None:
    """Over 30 draws of 1,000 samples: not optimistic, cautious by a few tenths of a point at most, and
    with intervals that cover the truth."""
    errors, cost_errors, covered, cost_covered = [], [], 0, 0
    true_before = synthetic.evaluate(IN_FORCE)
    for seed in range(30):
        data = drawn(synthetic, 1000, seed)
        choice = choose(data, COSTS, Goal("max_drop", 0.02))
        effect = expected_effect(data, choice, IN_FORCE, UNIT)
        after = synthetic.evaluate(choice.policy)
        truth = after.accuracy - true_before.accuracy
        cost_truth = after.mean_cost(COSTS) / true_before.mean_cost(COSTS) - 1
        change, (least, most) = effect.cost_changes["macs"]
        errors.append(effect.accuracy_change - truth)
        cost_errors.append(change - cost_truth)
        covered += effect.accuracy_interval[0] <= truth <= effect.accuracy_interval[1]
        cost_covered += least <= cost_truth <= most
    assert -0.004 < np.mean(errors) < 0.001
    assert abs(np.mean(cost_errors)) < 0.005
    assert covered >= 24
    assert cost_covered >= 25
