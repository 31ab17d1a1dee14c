"""Choices keep their goals on samples that they were not made on.

The statements are about means over draws, so they are tested by drawing: from the calibration table of
the embedded bundle, whose other samples give the true drop, and from synthetic exits.
`python -m benchmarks.promises.tuning` is the larger study.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

from exports.bundle.errors import TuningError
from exports.bundle.policy import Policy
from exports.bundle.reader import Table
from exports.tuning.goal import Goal
from exports.tuning.path import _divisions, cautious_path
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import FrontierPoint, PolicyEvaluator, frontier, full_depth
from exports.tuning.select import choose
from exports.tuning.simulation import simulate
from tests.exports.tuning.exits import COSTS, divided, one_measure, table


def true_drops(
    population: PolicyEvaluator, costs: list[float], samples: int, goal: Goal, draws: int
) -> np.ndarray:
    """The drop of the policies chosen from `draws` draws, on all other samples of `population`."""
    random = np.random.default_rng(samples)
    found = []
    for _ in range(draws):
        order = random.permutation(population.samples)
        policy = choose(divided(population.take(order[:samples])), costs, goal).policy
        found.append(population.take(order[samples:]).evaluate(policy).drop)
    return np.array(found)


@pytest.mark.parametrize(
    ("samples", "drop", "draws"),
    [(60, 0.05, 60), (120, 0.03, 60), (600, 0.005, 60), (600, 0.01, 60), (2500, 0.005, 20)],
)
@pytest.mark.usefixtures("coarse")
def test_the_mean_drop_on_other_images_is_at_most_the_goal(
    cifar: tuple[PolicyEvaluator, list[float]], samples: int, drop: float, draws: int
) -> None:
    found = true_drops(*cifar, samples, Goal("max_drop", drop), draws)
    error = found.std() / np.sqrt(draws)
    assert found.mean() <= drop + 2 * error
    assert found.mean() > 0.2 * drop  # the goal is used


@pytest.mark.parametrize(("samples", "drop"), [(60, 0.06), (600, 0.01), (5000, 0.005)])
@pytest.mark.usefixtures("coarse")
def test_the_mean_drop_of_synthetic_exits_is_at_most_the_goal(
    synthetic: PolicyEvaluator, samples: int, drop: float
) -> None:
    found = true_drops(synthetic, list(COSTS), samples, Goal("max_drop", drop), 40)
    assert found.mean() <= drop + 2 * found.std() / np.sqrt(len(found))


@pytest.mark.usefixtures("coarse")
def test_a_goal_below_the_evidence_never_costs_anything(
    cifar: tuple[PolicyEvaluator, list[float]],
) -> None:
    """Half a point is less than one of 120 samples: the choice is full depth in every draw."""
    assert not true_drops(*cifar, 120, Goal("max_drop", 0.005), 20).any()


@pytest.mark.usefixtures("coarse")
def test_a_minimum_accuracy_and_a_budget_are_met_on_other_images(
    cifar: tuple[PolicyEvaluator, list[float]],
) -> None:
    population, costs = cifar
    random = np.random.default_rng(0)
    accuracy, cost = [], []
    least, most = 0.67, 0.6 * costs[-1]
    for _ in range(30):
        order = random.permutation(population.samples)
        data, rest = divided(population.take(order[:1000])), population.take(order[1000:])
        accurate = choose(data, costs, Goal("min_accuracy", least))
        accuracy.append(rest.evaluate(accurate.policy).accuracy)
        cheap = choose(data, costs, Goal("budget", most))
        cost.append(rest.evaluate(cheap.policy).mean_cost(costs))
    assert np.mean(accuracy) >= least - 2 * np.std(accuracy) / np.sqrt(30)
    assert np.mean(cost) <= 1.002 * most


@pytest.mark.usefixtures("coarse")
def test_the_estimate_is_close_to_the_truth_and_its_interval_contains_it(
    cifar: tuple[PolicyEvaluator, list[float]],
) -> None:
    population, costs = cifar
    random = np.random.default_rng(1)
    errors, covered = [], []
    for _ in range(120):
        order = random.permutation(population.samples)
        choice = choose(divided(population.take(order[:800])), costs, Goal("max_drop", 0.01))
        truth = population.take(order[800:]).evaluate(choice.policy).drop
        low, high = choice.stats.drop_interval(0.95)
        errors.append(choice.stats.drop - truth)
        covered.append(low <= truth <= high)
    assert abs(np.mean(errors)) < 0.0025
    assert np.mean(covered) > 0.85


@pytest.mark.parametrize(("target", "trials"), [("labels", 1000), ("agreement", 300)])
def test_certificates_fail_no_more_often_than_stated_and_uncertified_thresholds_do(
    target: str, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of samples of one large table, on which the true drop can be computed."""
    monkeypatch.setattr("exports.tuning.path.frontier", partial(frontier, max_policies=144))
    last_search: list[tuple[PolicyEvaluator, list[FrontierPoint]]] = []

    def searched(evaluator: PolicyEvaluator, costs: Sequence[float]) -> list[FrontierPoint]:
        """The test and `choose` ask for the path of the same samples: it is searched once."""
        if not last_search or last_search[0][0] is not evaluator:
            last_search[:] = [(evaluator, cautious_path(evaluator, costs))]
        return last_search[0][1]

    monkeypatch.setattr("exports.tuning.certified.choose.cautious_path", searched)
    size, permitted, confidence = 600, 0.02, 0.9
    samples = table(5000)
    scaling = fit_scaling(samples)
    if target == "agreement":
        samples = Table(
            samples.logits, simulate(full_depth(3), samples.logits, scaling).predictions
        )
    population = one_measure(PolicyEvaluator.from_table(samples, scaling))
    known: dict[Policy, bool] = {}

    def fails(policy: Policy) -> bool:
        bare = policy.override(mode=policy.mode)
        if bare not in known:
            known[bare] = population.evaluate(bare).drop > permitted
        return known[bare]

    random = np.random.default_rng(0)
    certified = failures = naive = 0
    for _ in range(trials):
        drawn = divided(population.take(random.integers(0, population.samples, size)), target)
        points = searched(drawn.selection, COSTS)
        naive += fails(next(point.policy for point in points if point.drop <= permitted))
        try:
            policy = choose(drawn, COSTS, Goal("max_drop", permitted, confidence)).policy
        except TuningError:
            continue
        certified += 1
        failures += fails(policy)
    most = binom.ppf(0.999, trials, 1 - confidence)
    assert failures <= most
    assert naive > 3 * most
    assert certified > 0.5 * trials


def test_every_sample_is_left_out_once_in_each_repetition() -> None:
    divisions = list(_divisions(103, repeats=2))
    assert len(divisions) == 10
    for repetition in (divisions[:5], divisions[5:]):
        assert sorted(i for _, left_out in repetition for i in left_out) == list(range(103))
        for chosen_on, left_out in repetition:
            assert sorted([*chosen_on, *left_out]) == list(range(103))


def test_the_path_goes_on_to_full_depth_where_few_samples_end_the_frontier(
    cifar: tuple[PolicyEvaluator, list[float]],
) -> None:
    population, costs = cifar
    few = population.take(np.arange(300))
    path = cautious_path(few, costs)
    spent = [point.cost for point in path]
    assert spent == sorted(spent)
    assert spent[-1] > 0.9 * costs[-1] > frontier(few, costs)[-1].cost
    for point in path:
        stats = few.evaluate(point.policy)
        assert (stats.mean_cost(costs), stats.drop) == pytest.approx((point.cost, point.drop))


def test_a_path_begins_where_nothing_is_lost_and_has_no_wide_gaps() -> None:
    """Luck makes gaps in the frontier, and lets the last exit alone look better than the ensemble."""
    both = table(6000)
    two_exits = Table(both.logits[[0, 2]], both.labels)
    population = PolicyEvaluator.from_table(two_exits, fit_scaling(two_exits))
    costs = (1.0, 4.0)
    for seed in range(20):
        few = population.take(np.random.default_rng(seed).permutation(6000)[:300])
        path = [point for point in cautious_path(few, costs) if point.cost < costs[-1]]
        assert few.evaluate(path[-1].policy).losses == 0
        spent = [*(point.cost for point in path), costs[-1]]
        assert max(np.diff(spent)) < 0.25
