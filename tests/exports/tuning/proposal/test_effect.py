"""The expected effect of a proposal holds on samples that it was not chosen on."""

from __future__ import annotations

import numpy as np
import pytest

from exports.bundle.policy import Policy
from exports.tuning.goal import Goal, TuningData
from exports.tuning.proposal.effect import expected_effect, interval_of
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import PolicyEvaluator
from exports.tuning.select import choose
from tests.exports.tuning.exits import COSTS, SOURCE, divided, table

IN_FORCE = Policy(combine="running", thresholds=(0.8, 0.7), max_exit=3)
UNIT = {"macs": COSTS}
INPUTS = ("image", "features", "features")


def drawn(population: PolicyEvaluator, count: int, seed: int = 0) -> TuningData:
    rows = np.random.default_rng(seed).choice(population.samples, count, replace=False)
    return divided(population.take(rows))


@pytest.mark.parametrize("goal", [Goal("max_drop", 0.02), Goal("max_drop", 0.03, 0.9)])
def test_changes_are_those_between_the_two_policies(synthetic: PolicyEvaluator, goal: Goal) -> None:
    data = drawn(synthetic, 2000)
    choice = choose(data, COSTS, goal)
    effect = expected_effect(data, choice, IN_FORCE, UNIT, INPUTS)
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
    effect = expected_effect(data, choice, choice.policy, UNIT, INPUTS)
    assert effect.accuracy_change == 0
    assert effect.cost_changes["macs"] == (0, (0, 0))


def test_a_network_that_an_answer_does_not_need_costs_nothing() -> None:
    """Stages 2 and 3 are a network of their own: exit 3 alone needs no stage 1."""
    samples = table(600)
    data = TuningData.from_table(samples, fit_scaling(samples), SOURCE)
    choice = choose(data, COSTS, Goal("max_drop", 0.03, 0.9))
    last = Policy(mode="exit", thresholds=(0.8, 0.7), max_exit=3)
    effect = expected_effect(data, choice, last, UNIT, ("image", "image", "features"))
    before, after = effect.mean_costs["macs"]
    assert before == COSTS[2] - COSTS[0]
    assert after == choice.stats.mean_cost(COSTS)
    assert effect.cost_changes["macs"][0] == pytest.approx(after / before - 1)


@pytest.mark.usefixtures("coarse")
def test_the_effect_is_honest_on_new_samples(synthetic: PolicyEvaluator) -> None:
    """Over 30 draws of 1,000 samples: not optimistic, cautious by a few tenths of a point at most, and
    with intervals that cover the truth."""
    errors, cost_errors, covered, cost_covered = [], [], 0, 0
    true_before = synthetic.evaluate(IN_FORCE)
    for seed in range(30):
        data = drawn(synthetic, 1000, seed)
        choice = choose(data, COSTS, Goal("max_drop", 0.02))
        effect = expected_effect(data, choice, IN_FORCE, UNIT, INPUTS)
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
