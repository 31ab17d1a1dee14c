"""A chosen policy reaches its goal, and certificates hold with the stated probability."""

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
    Goal,
    TuningData,
    choose,
    default_policy,
    verify_certificate,
)

COSTS = (1.0, 2.0, 3.0)
SOURCE = "0" * 64


def table(count: int = 4000, seed: int = 0) -> Table:
    """Three exits with less noise at each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    shared = np.eye(10)[labels] * 2.0 + rng.normal(size=(count, 10))
    logits = [shared + rng.normal(scale=s, size=(count, 10)) for s in (1.2, 0.8, 0.4)]
    return Table(np.stack(logits).astype(np.float32), labels)


@pytest.fixture(scope="module")
def data() -> TuningData:
    samples = table()
    return TuningData.from_table(samples, fit_scaling(samples), SOURCE)


@pytest.mark.parametrize("drop", [0.0, 0.005, 0.03, 1.0])
def test_the_drop_on_the_selection_half_is_permitted(data: TuningData, drop: float) -> None:
    stats = data.selection.evaluate(choose(data, COSTS, Goal("max_drop", drop)))
    assert stats.drop <= drop + 1e-9
    assert stats.mean_cost(COSTS) < COSTS[-1]


def test_a_larger_permitted_drop_gives_a_cheaper_policy(data: TuningData) -> None:
    costs = [
        data.selection.evaluate(choose(data, COSTS, Goal("max_drop", drop))).mean_cost(COSTS)
        for drop in (0.0, 0.01, 0.1, 1.0)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[2]
    assert costs[-1] == COSTS[0]


def test_a_budget_gives_the_most_accurate_policy_within_it(data: TuningData) -> None:
    stats = [
        data.selection.evaluate(choose(data, COSTS, Goal("budget", amount)))
        for amount in (1.0, 1.5, 2.0, 3.0)
    ]
    for each, amount in zip(stats, (1.0, 1.5, 2.0, 3.0), strict=True):
        assert each.mean_cost(COSTS) <= amount + 1e-9
    assert [f.accuracy for f in stats] == sorted(f.accuracy for f in stats)
    assert stats[-1].drop <= 0


def test_the_minimum_accuracy_is_reached_by_the_cheapest_policy(data: TuningData) -> None:
    ensemble = data.selection.evaluate(full_depth(3)).accuracy
    stats = data.selection.evaluate(choose(data, COSTS, Goal("min_accuracy", ensemble - 0.02)))
    same = data.selection.evaluate(choose(data, COSTS, Goal("max_drop", 0.02)))
    assert stats.accuracy >= ensemble - 0.02
    assert stats.mean_cost(COSTS) == pytest.approx(same.mean_cost(COSTS))


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
def test_an_unreachable_goal_is_refused_with_the_best_that_is_possible(
    data: TuningData, goal: Goal, says: str
) -> None:
    costs = COSTS if goal.unit == "ms" else tuple(1e6 * c for c in COSTS)
    with pytest.raises(TuningError) as caught:
        choose(data, costs, goal)
    assert says in str(caught.value)


def test_a_certificate_states_what_was_proven_and_on_which_samples(data: TuningData) -> None:
    policy = choose(data, COSTS, Goal("max_drop", 0.02, 0.9))
    certificate = policy.certificate
    assert certificate is not None
    assert (certificate.method, certificate.against, certificate.target) == (
        "exact-trinomial",
        "ensemble",
        "labels",
    )
    assert (certificate.permitted_drop, certificate.confidence) == (2.0, 0.9)
    assert (certificate.chosen_on, certificate.samples) == (2000, 2000)
    assert certificate.split_sha256 == data.split_sha256
    stats = data.certification.evaluate(policy)
    assert 100 * stats.drop < certificate.bound <= 2.0
    assert stats.mean_cost(COSTS) < COSTS[-1]
    assert "With probability 90 %, the accuracy is at most 2 points below" in certificate.sentence


def test_a_certificate_can_be_verified_with_the_table(data: TuningData) -> None:
    policy = choose(data, COSTS, Goal("max_drop", 0.01, 0.95))
    assert policy.certificate is not None
    assert verify_certificate(policy, data) is True
    bolder = policy.model_copy(update={"thresholds": (0.0, 0.0)})
    assert verify_certificate(bolder, data) is False
    finer = policy.certificate.model_copy(update={"bound": 0.0})
    assert verify_certificate(policy.model_copy(update={"certificate": finer}), data) is False
    assert verify_certificate(policy.override(threshold=0.5), data) is None
    other = table(seed=1)
    assert (
        verify_certificate(policy, TuningData.from_table(other, fit_scaling(other), "1" * 64))
        is None
    )


def test_more_confidence_and_less_drop_cost_more(data: TuningData) -> None:
    def cost(drop: float, confidence: float) -> float:
        policy = choose(data, COSTS, Goal("max_drop", drop, confidence))
        return data.certification.evaluate(policy).mean_cost(COSTS)

    assert cost(0.02, 0.8) <= cost(0.02, 0.95) <= cost(0.02, 0.999)
    assert cost(0.05, 0.95) <= cost(0.02, 0.95) <= cost(0.01, 0.95)


@pytest.mark.parametrize("count", [60, 200, 1000])
def test_with_too_few_samples_the_message_says_how_many_would_do(count: int) -> None:
    samples = table(count)
    scaling = fit_scaling(samples)
    policy, promise = default_policy(samples, scaling, COSTS, SOURCE)
    assert policy.certificate is None
    says = re.fullmatch(
        r"The default policy is not certified: No policy cheaper than the ensemble can be promised to "
        rf"lose at most 0\.5 points with 95 % confidence from {count:,} samples; "
        r"(about|it takes at least about) ([0-9,]+)( would do)?\.",
        promise,
    )
    assert says is not None, promise
    assert 1500 < int(says[2].replace(",", "")) < 20_000
    stats = TuningData.from_table(samples, scaling, SOURCE).selection.evaluate(policy)
    assert stats.losses <= DEFAULT_DROP * stats.samples


def test_a_single_sample_is_refused() -> None:
    samples = table(1)
    with pytest.raises(TuningError, match="at least two samples"):
        TuningData.from_table(samples, fit_scaling(table(50)), SOURCE)


def test_a_network_of_one_exit_has_a_policy_too() -> None:
    samples = table(100)
    single = Table(samples.logits[-1:], samples.labels)
    policy, promise = default_policy(single, fit_scaling(single), COSTS[:1], SOURCE)
    assert (policy.thresholds, policy.max_exit, policy.certificate) == ((), 1, None)
    assert promise.endswith("no exit before the last, so every policy is the ensemble.")


def test_the_embedded_table_supports_a_certificate() -> None:
    manifest = read_manifest(embedded())
    samples = load_table(embedded(), manifest)
    costs = [entry.macs for entry in manifest.exits]
    source = manifest.calibration.sha256
    policy, promise = default_policy(samples, manifest.scaling, costs, source)
    assert policy.certificate is not None
    assert promise == policy.certificate.sentence
    stats = TuningData.from_table(samples, manifest.scaling, source).certification.evaluate(policy)
    assert stats.mean_cost(costs) < 0.8 * costs[-1]


SIZE, PERMITTED, CONFIDENCE = 600, 0.02, 0.9


def trial(population: PolicyEvaluator, rng: np.random.Generator, target: str) -> TuningData:
    """One draw of SIZE samples, in halves."""
    drawn = rng.integers(0, population.samples, SIZE)
    whole = population.take(drawn)
    first, second = np.arange(SIZE // 2), np.arange(SIZE // 2, SIZE)
    return TuningData(whole, whole.take(first), whole.take(second), SOURCE, target)  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "trials"), [("labels", 2000), ("agreement", 500)])
def test_certificates_fail_no_more_often_than_stated_and_uncertified_thresholds_do(
    target: str, trials: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of samples of one large table, on which the true drop can be computed."""
    # A coarse grid over one measure is fast, and the statement holds for any search.
    monkeypatch.setattr("exports.tuning.select.frontier", partial(frontier, max_policies=144))
    samples = table(5000)
    scaling = fit_scaling(samples)
    if target == "agreement":
        samples = Table(
            samples.logits, simulate(full_depth(3), samples.logits, scaling).predictions
        )
    whole = PolicyEvaluator.from_table(samples, scaling)
    key = ("max_prob", "running")
    population = PolicyEvaluator(
        {key: whole.confidence[key]}, whole.correct, whole.ensemble_correct
    )  # type: ignore[dict-item]
    true_drop: dict[Policy, float] = {}

    def fails(policy: Policy) -> bool:
        bare = policy.override(mode=policy.mode)
        if bare not in true_drop:
            true_drop[bare] = population.evaluate(bare).drop
        return true_drop[bare] > PERMITTED

    rng = np.random.default_rng(0)
    certified = failures = naive = 0
    for _ in range(trials):
        drawn = trial(population, rng, target)
        naive += fails(choose(drawn, COSTS, Goal("max_drop", PERMITTED)))
        try:
            policy = choose(drawn, COSTS, Goal("max_drop", PERMITTED, CONFIDENCE))
        except TuningError:
            continue
        certified += 1
        failures += fails(policy)
    most = binom.ppf(0.999, trials, 1 - CONFIDENCE)
    assert failures <= most
    assert naive > 3 * most
    assert certified > 0.5 * trials
