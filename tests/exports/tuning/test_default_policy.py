"""The policy without a goal: certified, cross-validated, or full depth, or the last network alone."""

from __future__ import annotations

import re

import numpy as np
import pytest

from exports.bundle.certificate import Target
from exports.bundle.reader import Table, load_table, read_manifest
from exports.tuning.goal import DEFAULT_DROP, Choice, Default, TuningData
from exports.tuning.scaling import fit_agreement, fit_scaling
from exports.tuning.search import NEVER
from exports.tuning.select import choose_default, default_policy
from tests.exports.bundles import INT8
from tests.exports.tuning.exits import COSTS, SOURCE, table


@pytest.mark.parametrize("count", [60, 200, 800])
def test_a_default_that_cannot_be_certified_says_how_many_samples_would_do(count: int) -> None:
    samples = table(count)
    choice = default_policy(samples, fit_scaling(samples), COSTS, SOURCE)
    assert choice.policy.certificate is None
    says = re.fullmatch(
        r"It is not certified: No policy cheaper than the ensemble can be promised to "
        rf"lose at most 0\.5 points with 95 % confidence from {count:,} samples; "
        r"(about|it takes at least about) ([0-9,]+)( would do)?\.",
        choice.notes[0],
    )
    assert says is not None, choice.notes
    assert 903 <= int(says[2].replace(",", "")) < 20_000
    assert choice.stats.drop <= DEFAULT_DROP
    assert (choice.stats.mean_cost(COSTS) == COSTS[-1]) == (count < 600)


def test_a_default_for_another_goal_is_certified_for_that() -> None:
    samples = table(2000)
    scaling = fit_scaling(samples)
    choice = default_policy(samples, scaling, COSTS, SOURCE, drop=0.03, confidence=0.9)
    certificate = choice.policy.certificate
    assert certificate is not None
    assert (certificate.permitted_drop, certificate.confidence) == (3, 0.9)
    few = default_policy(table(200), scaling, COSTS, SOURCE, drop=0.03, confidence=0.999)
    assert few.policy.certificate is None
    assert few.goal.value == 0.03
    assert "at most 3 points with 99.9 % confidence" in few.notes[0]


NETWORKS = ("image", "image", "image")


def default_of(samples: Table, inputs: tuple[str, ...], target: Target = "labels") -> Choice:
    scaling = fit_scaling(samples)
    return default_policy(samples, scaling, COSTS, SOURCE, target=target, inputs=inputs)


def test_few_samples_of_whole_networks_let_the_last_one_answer_alone() -> None:
    choice = default_of(table(120), NETWORKS)
    policy = choice.policy
    assert (policy.mode, policy.max_exit, policy.certificate) == ("exit", 3, None)
    assert choice.stats.mean_cost(policy.costs(NETWORKS, COSTS)) == COSTS[2] - COSTS[1]
    low, high = choice.stats.drop_interval(0.95)
    assert low < choice.stats.drop < high
    assert choice.promise.startswith("On 120 samples the policy is ")
    assert f"{100 * low:.2f} to {100 * high:.2f}" in choice.promise
    assert "do not support a drop of 0.5 points" in choice.notes[1]
    assert choice.notes[-1].startswith("The last network answers alone: the ensemble costs more")


@pytest.mark.parametrize(
    ("inputs", "target"),
    [(("image", "features", "features"), "labels"), (NETWORKS, "agreement"), ((), "labels")],
)
def test_a_last_stage_that_saves_nothing_alone_or_has_no_labels_stays_in_the_ensemble(
    inputs: tuple[str, ...], target: Target
) -> None:
    policy = default_of(table(120), inputs, target).policy
    assert (policy.mode, policy.thresholds) == ("early_exit", (NEVER, NEVER))


def test_without_labels_the_last_network_whose_answers_count_answers_alone() -> None:
    logits = table(120).logits
    answers = Table(logits, logits[2].argmax(axis=-1))
    choice = default_policy(
        answers, fit_agreement(answers, "last"), COSTS, SOURCE, target="agreement", inputs=NETWORKS
    )
    assert (choice.policy.mode, choice.policy.max_exit, choice.stats.accuracy) == ("exit", 3, 1)
    assert choice.notes[-1].startswith("The last network answers alone")
    scaling = fit_agreement(answers, "ensemble")
    kept = default_policy(
        answers, scaling, COSTS, SOURCE, target="agreement", inputs=NETWORKS
    ).policy
    assert kept.mode == "early_exit"


def test_an_ensemble_that_is_measurably_better_than_the_last_network_answers() -> None:
    samples = table(120)
    noise = np.random.default_rng(1).normal(scale=4, size=samples.logits[2].shape)
    worse = samples.logits.copy()
    worse[2] += noise.astype(np.float32)
    choice = default_of(Table(worse, samples.labels), NETWORKS)
    assert choice.policy.mode == "early_exit"
    assert not any("alone" in note for note in choice.notes)


def test_samples_that_support_an_early_exit_get_it() -> None:
    samples = table(4000)
    assert default_of(samples, NETWORKS).policy == default_of(samples, ()).policy


def test_the_interval_of_the_last_network_is_wide_on_few_samples_even_without_a_difference() -> (
    None
):
    certain = np.eye(10, dtype=np.float32)[np.arange(40) % 10] * 9
    choice = default_of(Table(np.stack([certain] * 3), np.arange(40) % 10), NETWORKS)
    assert choice.policy.mode == "exit"
    assert "0.00 points below" in choice.promise
    assert "0.00 to 0.00" not in choice.promise


def test_a_network_of_one_exit_has_a_policy_too() -> None:
    samples = table(100)
    single = Table(samples.logits[-1:], samples.labels)
    choice = default_policy(single, fit_scaling(single), COSTS[:1], SOURCE)
    policy = choice.policy
    assert (policy.thresholds, policy.max_exit, policy.certificate) == ((), 1, None)
    assert choice.notes[-1].endswith("no exit before the last, so every policy is the ensemble.")


def test_5000_samples_support_a_certificate() -> None:
    manifest = read_manifest(INT8)
    samples = load_table(INT8, manifest)
    costs = [entry.macs for entry in manifest.exits]
    choice = choose_default(TuningData.from_bundle(samples, manifest), costs, Default())
    assert choice.policy.certificate is not None
    assert choice.policy.certificate.chosen_on == 2500  # a bundle of an earlier version
    assert choice.promise == choice.policy.certificate.sentence
    assert choice.stats.mean_cost(costs) < 0.7 * costs[-1]
