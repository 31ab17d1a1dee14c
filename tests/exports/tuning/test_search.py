"""The search agrees with the engine, and is fast."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.bundle.manifest import MAX_EXITS
from exports.bundle.policy import Combine, Floats, Measure, Policy, Scaling
from exports.bundle.reader import Table, load_table, read_manifest
from exports.tuning.search import (
    MAX_GRID_POLICIES,
    NEVER,
    PolicyEvaluator,
    frontier,
    full_depth,
)
from exports.tuning.simulation import simulate
from tests.exports.bundles import INT8
from tests.exports.policies import CLASSES, EXITS, policies, scalings, tables

COSTS = (1.0, 2.5, 3.0, 7.0)


def table_with_labels(logits: Floats, seed: int) -> Table:
    """A table of `logits` with random labels."""
    return Table(logits, np.random.default_rng(seed).integers(0, CLASSES, logits.shape[1]))


@given(policies, tables, scalings, st.integers(0, 9))
def test_a_policy_is_evaluated_exactly_as_it_is_simulated(
    policy: Policy, logits: Floats, scaling: Scaling, seed: int
) -> None:
    table = table_with_labels(logits, seed)
    stats = PolicyEvaluator.from_table(table, scaling).evaluate(policy)
    outcome = simulate(policy, logits, scaling)
    ensemble = simulate(full_depth(EXITS), logits, scaling)
    assert stats.exit_shares == outcome.shares(EXITS)
    assert stats.accuracy == outcome.accuracy(table.labels)
    assert stats.mean_cost(COSTS) == pytest.approx(outcome.mean_cost(COSTS))
    assert stats.drop == pytest.approx(
        ensemble.accuracy(table.labels) - outcome.accuracy(table.labels)
    )
    correct = outcome.predictions == table.labels
    ensemble_correct = ensemble.predictions == table.labels
    assert stats.losses == sum(ensemble_correct & ~correct)
    assert stats.gains == sum(correct & ~ensemble_correct)


@given(tables, scalings, st.integers(0, 9), st.data())
def test_a_part_of_the_samples_can_be_evaluated(
    logits: Floats, scaling: Scaling, seed: int, data: st.DataObject
) -> None:
    table = table_with_labels(logits, seed)
    index = np.array(data.draw(st.lists(st.integers(0, logits.shape[1] - 1), min_size=1)))
    policy = data.draw(policies)
    part = PolicyEvaluator.from_table(Table(logits[:, index], table.labels[index]), scaling)
    taken = PolicyEvaluator.from_table(table, scaling).take(index)
    assert taken.evaluate(policy) == part.evaluate(policy)


@settings(max_examples=25)
@given(tables, scalings, st.integers(0, 9))
def test_nothing_on_the_grid_beats_the_frontier(
    logits: Floats, scaling: Scaling, seed: int
) -> None:
    evaluator = PolicyEvaluator.from_table(table_with_labels(logits, seed), scaling)
    points = frontier(evaluator, COSTS, caution=0, max_policies=4**3)
    for point in points:
        stats = evaluator.evaluate(point.policy)
        assert stats.mean_cost(COSTS) == pytest.approx(point.cost)
        assert stats.drop == pytest.approx(point.drop)
    assert all(a.cost < b.cost and a.drop > b.drop for a, b in itertools.pairwise(points))
    for key in evaluator.confidence:  # no single measure has a point that the frontier lacks
        alone = PolicyEvaluator(
            {key: evaluator.confidence[key]}, evaluator.correct, evaluator.ensemble_correct
        )
        for point in frontier(alone, COSTS, caution=0, max_policies=4**3):
            assert any(p.cost <= point.cost and p.drop <= point.drop for p in points)


@settings(max_examples=25)
@given(tables, scalings, st.integers(0, 9), st.sampled_from(get_args(Measure)))
def test_the_frontier_equals_that_of_an_exhaustive_search(
    logits: Floats, scaling: Scaling, seed: int, measure: Measure
) -> None:
    combine: Combine = "single"
    every_measure = PolicyEvaluator.from_table(table_with_labels(logits, seed), scaling)
    evaluator = PolicyEvaluator(
        {(measure, combine): every_measure.confidence[measure, combine]},
        every_measure.correct,
        every_measure.ensemble_correct,
    )
    inner = [
        np.quantile(values, [1 / 3, 2 / 3]).round(6).astype(np.float32)
        for values in evaluator.confidence[measure, combine][:-1]
    ]
    grid = itertools.product(*[[0.0, *map(float, values), NEVER] for values in inner])
    tried = [
        evaluator.evaluate(Policy(measure=measure, combine=combine, thresholds=t, max_exit=EXITS))
        for t in grid
    ]
    pairs = {(round(f.mean_cost(COSTS), 9), round(f.drop, 9)) for f in tried}
    best = {p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs)}
    found = frontier(evaluator, COSTS, caution=0, max_policies=4**3)
    assert {(round(p.cost, 9), round(p.drop, 9)) for p in found} == best


def test_a_network_of_one_exit_has_one_policy() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 20, CLASSES)).astype(np.float32)
    evaluator = PolicyEvaluator.from_table(
        table_with_labels(logits, 0), Scaling((1.0,), (1.0,), (1.0,))
    )
    (point,) = frontier(evaluator, [3.0])
    assert (point.cost, point.drop, point.policy.thresholds) == (3.0, 0.0, ())


@pytest.mark.parametrize("exits", [9, 10, 14, MAX_EXITS])
def test_the_search_counts_no_more_policies_than_it_may_however_many_exits(exits: int) -> None:
    logits = np.random.default_rng(0).normal(size=(exits, 30, CLASSES)).astype(np.float32)
    one = (1.0,) * exits
    evaluator = PolicyEvaluator.from_table(table_with_labels(logits, 0), Scaling(one, one, one))
    costs = np.arange(1.0, exits + 1)
    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        zeros = np.zeros
        patch.setattr(np, "zeros", lambda shape: sizes.append(int(np.prod(shape))) or zeros(shape))
        points = frontier(evaluator, costs)
    assert max(sizes) <= MAX_GRID_POLICIES
    for point in points:
        stats = evaluator.evaluate(point.policy)
        assert stats.mean_cost(costs) == pytest.approx(point.cost)
        assert stats.drop == pytest.approx(point.drop)
    assert points[0].cost == costs[0]
    used = {k for point in points for k, t in enumerate(point.policy.thresholds) if t < NEVER}
    assert max(used) > exits // 2


@pytest.mark.serial
def test_the_search_evaluates_thousands_of_policies_a_second() -> None:
    """On the table of the bundle with four exits, 5,000 samples; an idle machine is many times faster."""
    manifest = read_manifest(INT8)
    evaluator = PolicyEvaluator.from_table(load_table(INT8, manifest), manifest.scaling)
    policy = Policy(thresholds=(0.5, 0.6, 0.7), max_exit=4)

    def seconds(function: Callable[[], object], repeats: int) -> float:
        best = float("inf")
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(lambda: evaluator.evaluate(policy), 50) < 1e-3
    policies_searched = 6 * 20**3
    costs = [entry.macs for entry in manifest.exits]
    assert policies_searched / seconds(lambda: frontier(evaluator, costs), 3) > 10_000
