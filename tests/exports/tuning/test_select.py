"""A goal is reached, and a promise is kept as often as it says."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

from exports.bundle.errors import TuningError
from exports.bundle.policy import Policy, simulate
from exports.bundle.reader import Table, load_table, read_manifest
from exports.bundle.resolve import embedded
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import PolicyEvaluator, frontier, full_depth
from exports.tuning.select import (
    DEFAULT_DROP,
    Data,
    Goal,
    choose,
    confirmed,
    default_policy,
)

COSTS = (1.0, 2.0, 3.0)
SOURCE = "0" * 64


def table(count: int = 4000, seed: int = 0) -> Table:
    """Three exits that see the truth ever more clearly."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    seen = np.eye(10)[labels] * 2.0 + rng.normal(size=(count, 10))
    logits = [seen + rng.normal(scale=s, size=(count, 10)) for s in (1.2, 0.8, 0.4)]
    return Table(np.stack(logits).astype(np.float32), labels)


@pytest.fixture(scope="module")
def data() -> Data:
    known = table()
    return Data.of(known, fit_scaling(known), SOURCE)


@pytest.mark.parametrize("drop", [0.0, 0.005, 0.03, 1.0])
def test_the_drop_is_kept_to_on_the_half_chosen_on(data: Data, drop: float) -> None:
    figures = data.first.evaluate(choose(data, COSTS, Goal("max_drop", drop)))
    assert figures.drop <= drop + 1e-9
    assert figures.mean_cost(COSTS) < COSTS[-1]


def test_a_larger_drop_buys_a_cheaper_policy(data: Data) -> None:
    costs = [
        data.first.evaluate(choose(data, COSTS, Goal("max_drop", drop))).mean_cost(COSTS)
        for drop in (0.0, 0.01, 0.1, 1.0)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[2]
    assert costs[-1] == COSTS[0]


def test_a_budget_buys_the_most_accurate_policy_within_it(data: Data) -> None:
    figures = [
        data.first.evaluate(choose(data, COSTS, Goal("budget", amount)))
        for amount in (1.0, 1.5, 2.0, 3.0)
    ]
    for each, amount in zip(figures, (1.0, 1.5, 2.0, 3.0), strict=True):
        assert each.mean_cost(COSTS) <= amount + 1e-9
    assert [f.accuracy for f in figures] == sorted(f.accuracy for f in figures)
    assert figures[-1].drop <= 0


def test_the_least_accuracy_is_reached_as_cheaply_as_can_be(data: Data) -> None:
    ensemble = data.first.evaluate(full_depth(3)).accuracy
    figures = data.first.evaluate(choose(data, COSTS, Goal("min_accuracy", ensemble - 0.02)))
    same = data.first.evaluate(choose(data, COSTS, Goal("max_drop", 0.02)))
    assert figures.accuracy >= ensemble - 0.02
    assert figures.mean_cost(COSTS) == pytest.approx(same.mean_cost(COSTS))


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        (Goal("budget", 0.5e6, unit="macs"), "No policy costs 0.5 M MACs"),
        (Goal("budget", 0.5, unit="ms"), "the cheapest costs 1 ms"),
        (
            Goal("min_accuracy", 0.999),
            "No policy is right on 99.9 % of the samples; the best is on",
        ),
        (Goal("max_drop", 0.0, 0.95), "promised to lose at most 0 points"),
    ],
)
def test_a_goal_out_of_reach_is_refused_with_what_there_is(
    data: Data, goal: Goal, says: str
) -> None:
    costs = COSTS if goal.unit == "ms" else tuple(1e6 * c for c in COSTS)
    with pytest.raises(TuningError) as refusal:
        choose(data, costs, goal)
    assert says in str(refusal.value)


def test_a_certified_policy_says_what_was_proven_and_on_what(data: Data) -> None:
    policy = choose(data, COSTS, Goal("max_drop", 0.02, 0.9))
    found = policy.certificate
    assert found is not None
    assert (found.method, found.against, found.target) == ("exact-trinomial", "ensemble", "labels")
    assert (found.permitted_drop, found.confidence) == (2.0, 0.9)
    assert (found.chosen_on, found.samples) == (2000, 2000)
    assert found.split_sha256 == data.split_sha256
    figures = data.second.evaluate(policy)
    assert 100 * figures.drop < found.bound <= 2.0
    assert figures.mean_cost(COSTS) < COSTS[-1]
    assert "With probability 90 %, the accuracy is at most 2 points below" in found.sentence


def test_a_certificate_can_be_checked_by_who_has_the_table(data: Data) -> None:
    policy = choose(data, COSTS, Goal("max_drop", 0.01, 0.95))
    assert policy.certificate is not None
    assert confirmed(policy, data) is True
    bolder = policy.model_copy(update={"thresholds": (0.0, 0.0)})
    assert confirmed(bolder, data) is False
    finer = policy.certificate.model_copy(update={"bound": 0.0})
    assert confirmed(policy.model_copy(update={"certificate": finer}), data) is False
    assert confirmed(policy.override(threshold=0.5), data) is None
    other = table(seed=1)
    assert confirmed(policy, Data.of(other, fit_scaling(other), "1" * 64)) is None


def test_more_confidence_and_less_drop_cost_more(data: Data) -> None:
    def cost(drop: float, confidence: float) -> float:
        policy = choose(data, COSTS, Goal("max_drop", drop, confidence))
        return data.second.evaluate(policy).mean_cost(COSTS)

    assert cost(0.02, 0.8) <= cost(0.02, 0.95) <= cost(0.02, 0.999)
    assert cost(0.05, 0.95) <= cost(0.02, 0.95) <= cost(0.01, 0.95)


@pytest.mark.parametrize("count", [60, 200, 1000])
def test_too_few_samples_say_how_many_would_do(count: int) -> None:
    known = table(count)
    scaling = fit_scaling(known)
    policy, said = default_policy(known, scaling, COSTS, SOURCE)
    assert policy.certificate is None
    says = re.fullmatch(
        r"The default policy is not certified: No policy cheaper than the ensemble can be promised to "
        rf"lose at most 0\.5 points with 95 % confidence from {count:,} samples; "
        r"(about|it takes at least about) ([0-9,]+)( would do)?\.",
        said,
    )
    assert says is not None, said
    assert 1500 < int(says[2].replace(",", "")) < 20_000
    figures = Data.of(known, scaling, SOURCE).first.evaluate(policy)
    assert figures.drop <= DEFAULT_DROP


def test_a_single_sample_is_refused() -> None:
    known = table(1)
    with pytest.raises(TuningError, match="at least two samples"):
        Data.of(known, fit_scaling(table(50)), SOURCE)


def test_a_network_of_one_exit_has_a_policy_too() -> None:
    known = table(100)
    single = Table(known.logits[-1:], known.labels)
    policy, said = default_policy(single, fit_scaling(single), COSTS[:1], SOURCE)
    assert (policy.thresholds, policy.max_exit, policy.certificate) == ((), 1, None)
    assert said.endswith("no exit before the last, so every policy is the ensemble.")


def test_the_embedded_table_supports_a_certificate() -> None:
    manifest = read_manifest(embedded())
    known = load_table(embedded(), manifest)
    costs = [entry.macs for entry in manifest.exits]
    source = manifest.calibration.sha256
    policy, said = default_policy(known, manifest.scaling, costs, source)
    assert policy.certificate is not None
    assert said == policy.certificate.sentence
    figures = Data.of(known, manifest.scaling, source).second.evaluate(policy)
    assert figures.mean_cost(costs) < 0.8 * costs[-1]


SIZE, PERMITTED, CONFIDENCE = 600, 0.02, 0.9


def trial(population: PolicyEvaluator, rng: np.random.Generator, target: str) -> Data:
    """One draw of SIZE samples, in halves."""
    drawn = rng.integers(0, population.samples, SIZE)
    whole = population.take(drawn)
    first, second = np.arange(SIZE // 2), np.arange(SIZE // 2, SIZE)
    return Data(whole, whole.take(first), whole.take(second), SOURCE, target)  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "trials"), [("labels", 2000), ("agreement", 500)])
def test_the_promise_breaks_no_more_often_than_stated_and_a_naive_threshold_does(
    target: str, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of splits of one large table, on all of which the true drop is known."""
    # A coarse grid over one measure: the statement is about any search, and this one is quick.
    monkeypatch.setattr("exports.tuning.select.frontier", partial(frontier, grid_policies=144))
    known = table(5000)
    scaling = fit_scaling(known)
    if target == "agreement":
        known = Table(known.logits, simulate(full_depth(3), known.logits, scaling).predictions)
    whole = PolicyEvaluator.of(known, scaling)
    key = ("max_prob", "running")
    population = PolicyEvaluator({key: whole.confidences[key]}, whole.right, whole.ensemble)  # type: ignore[dict-item]
    true_drop: dict[Policy, float] = {}

    def broken(policy: Policy) -> bool:
        bare = policy.override(mode=policy.mode)
        if bare not in true_drop:
            true_drop[bare] = population.evaluate(bare).drop
        return true_drop[bare] > PERMITTED

    rng = np.random.default_rng(0)
    certified = breaks = naive = 0
    for _ in range(trials):
        drawn = trial(population, rng, target)
        naive += broken(choose(drawn, COSTS, Goal("max_drop", PERMITTED)))
        try:
            policy = choose(drawn, COSTS, Goal("max_drop", PERMITTED, CONFIDENCE))
        except TuningError:
            continue
        certified += 1
        breaks += broken(policy)
    most = binom.ppf(0.999, trials, 1 - CONFIDENCE)
    assert breaks <= most
    assert naive > 3 * most
    assert certified > 0.5 * trials
