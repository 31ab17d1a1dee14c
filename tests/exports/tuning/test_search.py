"""The search sees what the engine will do, and sees much of it quickly."""

from __future__ import annotations

import itertools
import time
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports.bundle.policy import Combine, Floats, Measure, Policy, Scaling, simulate
from exports.bundle.reader import Table, load_table, read_manifest
from exports.bundle.resolve import embedded
from exports.tuning.search import NEVER, PolicyEvaluator, frontier, full_depth
from tests.exports.bundle.test_policy import CLASSES, EXITS, policies, scalings, tables

COSTS = (1.0, 2.5, 3.0, 7.0)


def labels_for(logits: Floats, seed: int) -> Table:
    return Table(logits, np.random.default_rng(seed).integers(0, CLASSES, logits.shape[1]))


@given(policies, tables, scalings, st.integers(0, 9))
def test_a_policy_is_evaluated_exactly_as_it_is_simulated(
    policy: Policy, logits: Floats, scaling: Scaling, seed: int
) -> None:
    table = labels_for(logits, seed)
    figures = PolicyEvaluator.of(table, scaling).evaluate(policy)
    outcome = simulate(policy, logits, scaling)
    ensemble = simulate(full_depth(EXITS), logits, scaling)
    assert figures.shares == outcome.shares(EXITS)
    assert figures.accuracy == outcome.accuracy(table.labels)
    assert figures.mean_cost(COSTS) == pytest.approx(outcome.mean_cost(COSTS))
    assert figures.drop == pytest.approx(
        ensemble.accuracy(table.labels) - outcome.accuracy(table.labels)
    )
    right, held_to = outcome.predictions == table.labels, ensemble.predictions == table.labels
    assert (figures.losses, figures.gains) == (sum(held_to & ~right), sum(right & ~held_to))


@given(tables, scalings, st.integers(0, 9), st.data())
def test_samples_can_be_taken_out_of_a_space(
    logits: Floats, scaling: Scaling, seed: int, data: st.DataObject
) -> None:
    table = labels_for(logits, seed)
    index = np.array(data.draw(st.lists(st.integers(0, logits.shape[1] - 1), min_size=1)))
    policy = data.draw(policies)
    some = PolicyEvaluator.of(Table(logits[:, index], table.labels[index]), scaling)
    assert PolicyEvaluator.of(table, scaling).take(index).evaluate(policy) == some.evaluate(policy)


@settings(max_examples=25)
@given(tables, scalings, st.integers(0, 9))
def test_nothing_on_the_grid_beats_the_frontier(
    logits: Floats, scaling: Scaling, seed: int
) -> None:
    space = PolicyEvaluator.of(labels_for(logits, seed), scaling)
    points = frontier(space, COSTS, grid_policies=4**3)
    for point in points:
        figures = space.evaluate(point.policy)
        assert figures.mean_cost(COSTS) == pytest.approx(point.cost)
        assert figures.drop == pytest.approx(point.drop)
    assert all(a.cost < b.cost and a.drop > b.drop for a, b in itertools.pairwise(points))
    for key in space.confidences:  # what one measure offers alone, all of them offer
        alone = PolicyEvaluator({key: space.confidences[key]}, space.right, space.ensemble)
        for own in frontier(alone, COSTS, grid_policies=4**3):
            assert any(p.cost <= own.cost and p.drop <= own.drop for p in points)


@settings(max_examples=25)
@given(tables, scalings, st.integers(0, 9), st.sampled_from(get_args(Measure)))
def test_the_frontier_is_that_of_trying_every_combination(
    logits: Floats, scaling: Scaling, seed: int, measure: Measure
) -> None:
    combine: Combine = "single"
    whole = PolicyEvaluator.of(labels_for(logits, seed), scaling)
    space = PolicyEvaluator(
        {(measure, combine): whole.confidences[measure, combine]}, whole.right, whole.ensemble
    )
    inner = [
        np.quantile(own, [1 / 3, 2 / 3]).round(6).astype(np.float32)
        for own in space.confidences[measure, combine][:-1]
    ]
    grid = itertools.product(*[[0.0, *map(float, own), NEVER] for own in inner])
    tried = [
        space.evaluate(Policy(measure=measure, combine=combine, thresholds=t, max_exit=EXITS))
        for t in grid
    ]
    pairs = {(round(f.mean_cost(COSTS), 9), round(f.drop, 9)) for f in tried}
    best = {p for p in pairs if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in pairs)}
    found = frontier(space, COSTS, grid_policies=4**3)
    assert {(round(p.cost, 9), round(p.drop, 9)) for p in found} == best


def test_a_network_of_one_exit_has_one_policy() -> None:
    logits = np.random.default_rng(0).normal(size=(1, 20, CLASSES)).astype(np.float32)
    space = PolicyEvaluator.of(labels_for(logits, 0), Scaling((1.0,), (1.0,), (1.0,)))
    (point,) = frontier(space, [3.0])
    assert (point.cost, point.drop, point.policy.thresholds) == (3.0, 0.0, ())


@pytest.mark.serial
def test_the_search_evaluates_thousands_of_policies_a_second() -> None:
    """On the embedded bundle's table, 5,000 samples; many times faster on a machine at rest."""
    manifest = read_manifest(embedded())
    space = PolicyEvaluator.of(load_table(embedded(), manifest), manifest.scaling)
    policy = Policy(thresholds=(0.5, 0.6, 0.7), max_exit=4)

    def seconds(of: object, repeats: int) -> float:
        best = float("inf")
        for _ in range(repeats):
            began = time.perf_counter()
            of()  # type: ignore[operator]
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(lambda: space.evaluate(policy), 50) < 1e-3
    six_grids = 6 * 40**3
    costs = [entry.macs for entry in manifest.exits]
    assert six_grids / seconds(lambda: frontier(space, costs), 3) > 10_000
