"""A chosen policy reaches its goal, and certificates hold with the stated probability."""

from __future__ import annotations

import re

import numpy as np
import pytest

from exports.bundle.errors import TuningError
from exports.bundle.reader import Table
from exports.tuning.certificate import make_certificate
from exports.tuning.goal import Goal, TuningData
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import NEVER, full_depth
from exports.tuning.select import choose, verify_certificate
from tests.exports.tuning.exits import COSTS, table

SOURCE = "0" * 64


@pytest.fixture(scope="module")
def data() -> TuningData:
    samples = table()
    return TuningData.from_table(samples, fit_scaling(samples), SOURCE)


@pytest.mark.parametrize("drop", [0.005, 0.03, 1.0])
def test_the_drop_on_samples_left_out_is_permitted(data: TuningData, drop: float) -> None:
    choice = choose(data, COSTS, Goal("max_drop", drop))
    assert choice.stats.samples == 4000
    assert choice.stats.drop <= drop + 1e-9
    assert choice.stats.mean_cost(COSTS) < COSTS[-1]
    assert choice.notes == ()
    low, high = choice.stats.drop_interval(0.95)
    assert f"{100 * choice.stats.drop:.2f} points below" in choice.promise
    assert f"{100 * low:.2f} to {100 * high:.2f}" in choice.promise


def test_a_larger_permitted_drop_gives_a_cheaper_policy(data: TuningData) -> None:
    costs = [
        choose(data, COSTS, Goal("max_drop", drop)).stats.mean_cost(COSTS)
        for drop in (0.001, 0.01, 0.1, 1.0)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[2]
    assert costs[-1] == COSTS[0]


def test_a_budget_gives_the_most_accurate_policy_within_it(data: TuningData) -> None:
    stats = [choose(data, COSTS, Goal("budget", amount)).stats for amount in (1.0, 1.5, 2.0, 3.0)]
    for each, amount in zip(stats, (1.0, 1.5, 2.0, 3.0), strict=True):
        assert each.mean_cost(COSTS) <= amount + 1e-9
    assert [f.accuracy for f in stats] == sorted(f.accuracy for f in stats)
    assert stats[-1].drop <= 0.001


def test_the_minimum_accuracy_is_reached_by_the_cheapest_policy(data: TuningData) -> None:
    ensemble = data.whole.evaluate(full_depth(3)).accuracy
    choice = choose(data, COSTS, Goal("min_accuracy", ensemble - 0.02))
    same = choose(data, COSTS, Goal("max_drop", 0.02))
    assert choice.stats.accuracy >= ensemble - 0.02
    assert choice.policy == same.policy


@pytest.mark.parametrize("count", [60, 120, 600])
@pytest.mark.parametrize("value", [0.0, 0.002])
def test_a_goal_that_the_samples_do_not_support_gives_full_depth_and_the_next_command(
    count: int, value: float
) -> None:
    samples = table(count)
    few = TuningData.from_table(samples, fit_scaling(samples), SOURCE)
    choice = choose(few, COSTS, Goal("max_drop", value), "offramp tune b")
    assert choice.policy.thresholds == (NEVER, NEVER)
    assert (choice.stats.drop, choice.stats.exit_shares) == (0, (0, 0, 1))
    assert choice.promise == "The policy runs every image to full depth."
    (note,) = choice.notes
    assert note.startswith(f"{count:,} samples do not support a drop of {100 * value:g} points")
    assert (": 1,500 samples" in note.replace("takes at least", ":")) == (value == 0.002)
    says = re.search(r"these support `offramp tune b --max-accuracy-drop ([0-9.]+)`\.$", note)
    assert says is not None, note
    supported = choose(few, COSTS, Goal("max_drop", float(says[1]) / 100))
    assert supported.notes == ()
    assert supported.stats.mean_cost(COSTS) < COSTS[-1]


def test_a_minimum_accuracy_just_below_the_ensembles_needs_more_samples() -> None:
    samples = table(600)
    few = TuningData.from_table(samples, fit_scaling(samples), SOURCE)
    ensemble = float(few.whole.ensemble_correct.mean())
    choice = choose(few, COSTS, Goal("min_accuracy", ensemble - 0.001))
    assert choice.stats.mean_cost(COSTS) == COSTS[-1]
    (note,) = choice.notes
    says = re.search(r"these support `offramp tune BUNDLE --min-accuracy ([0-9.]+)`\.$", note)
    assert says is not None, note
    supported = choose(few, COSTS, Goal("min_accuracy", float(says[1]) / 100))
    assert supported.stats.mean_cost(COSTS) < COSTS[-1]


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        (Goal("budget", 0.5e6, unit="macs"), "No policy costs 0.5 M MACs"),
        (Goal("budget", 0.5, unit="ms"), "the cheapest costs 1 ms"),
        (
            Goal("min_accuracy", 0.999),
            "No policy is right on 99.9 % of the samples; the best is on",
        ),
        (
            Goal("max_drop", 0.0, 0.95),
            "without a promise: `offramp tune BUNDLE --max-accuracy-drop 0`.",
        ),
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
    choice = choose(data, COSTS, Goal("max_drop", 0.02, 0.9))
    policy = choice.policy
    certificate = policy.certificate
    assert certificate is not None
    assert (certificate.method, certificate.against, certificate.target) == (
        "exact-score",
        "ensemble",
        "labels",
    )
    assert (certificate.permitted_drop, certificate.confidence) == (2.0, 0.9)
    assert (certificate.chosen_on, certificate.samples) == (1333, 2667)
    assert certificate.split_sha256 == data.split_sha256
    stats = data.certification.evaluate(policy)
    assert choice.stats == stats
    assert choice.promise == certificate.sentence
    assert 100 * stats.drop < certificate.bound <= 2.0
    assert stats.mean_cost(COSTS) < COSTS[-1]
    assert "With probability 90 %, the accuracy is at most 2 points below" in certificate.sentence


def test_a_certificate_can_be_verified_with_the_table(data: TuningData) -> None:
    policy = choose(data, COSTS, Goal("max_drop", 0.01, 0.95)).policy
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
        return choose(data, COSTS, Goal("max_drop", drop, confidence)).stats.mean_cost(COSTS)

    assert cost(0.02, 0.8) <= cost(0.02, 0.95) <= cost(0.02, 0.999)
    assert cost(0.05, 0.95) <= cost(0.02, 0.95) <= cost(0.01, 0.95)


def test_a_certificate_of_an_earlier_version_is_verified() -> None:
    samples = table()
    data = TuningData.from_table(samples, fit_scaling(samples), SOURCE, chosen_on=2000)
    policy = choose(data, COSTS, Goal("max_drop", 0.03, 0.95)).policy
    safer = policy.model_copy(update={"thresholds": tuple(1.1 * t for t in policy.thresholds)})
    stats = data.certification.evaluate(safer)
    old = make_certificate(stats, 0.03, 0.95, "exact-trinomial", 2000, data.split_sha256)
    assert verify_certificate(safer.model_copy(update={"certificate": old}), data) is True
    invented = old.model_copy(update={"bound": 0.01})
    assert verify_certificate(safer.model_copy(update={"certificate": invented}), data) is False
    other = old.model_copy(update={"method": "clopper-pearson"})
    assert verify_certificate(safer.model_copy(update={"certificate": other}), data) is False


@pytest.mark.parametrize(("count", "suggested"), [(2, None), (3, "100"), (4, "75.1")])
def test_a_drop_of_more_than_everything_is_not_suggested(count: int, suggested: str | None) -> None:
    certain = np.eye(10, dtype=np.float32)[np.arange(count)] * 9
    samples = Table(np.stack([certain] * 3), np.arange(count))
    few = TuningData.from_table(samples, fit_scaling(samples), SOURCE)
    (note,) = choose(few, COSTS, Goal("max_drop", 0.005)).notes
    says = re.search(r"--max-accuracy-drop ([0-9.]+)`", note)
    assert (says[1] if says else None) == suggested
    if suggested is not None:
        assert choose(few, COSTS, Goal("max_drop", float(suggested) / 100)).notes == ()


def test_a_single_sample_is_refused() -> None:
    samples = table(1)
    with pytest.raises(TuningError, match="at least two samples"):
        TuningData.from_table(samples, fit_scaling(table(50)), SOURCE)
