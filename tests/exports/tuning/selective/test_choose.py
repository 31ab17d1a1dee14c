"""Thresholds for one goal, and `reject_below` for a precision, on samples that neither was chosen on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom

from exports.bundle.errors import TuningError
from exports.bundle.policy import Policy
from exports.bundle.reader import Table
from exports.tuning.goal import Default, Goal, PrecisionGoal, TuningData
from exports.tuning.path import left_out_answers
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import PolicyEvaluator, frontier
from exports.tuning.select import choose, choose_default, verify_certificate
from exports.tuning.selective.certificate import find_certified, verify_precision
from exports.tuning.selective.choose import choose_precise, reproduces_precision
from exports.tuning.simulation import simulate
from tests.exports.tuning.exits import COSTS, SOURCE, divided, table


@pytest.fixture(scope="module")
def samples() -> Table:
    return table()


@pytest.fixture(scope="module")
def data(samples: Table) -> TuningData:
    return TuningData.from_table(samples, fit_scaling(samples), SOURCE)


def test_the_answers_of_a_policy_are_those_it_simulates(samples: Table) -> None:
    scaling = fit_scaling(samples)
    evaluator = PolicyEvaluator.from_table(samples, scaling)
    for policy in (
        Policy(measure="margin", combine="running", thresholds=(0.5, 0.4), max_exit=3),
        Policy(measure="entropy", combine="single", thresholds=(0.5, 0.4), max_exit=2),
        Policy(mode="ensemble", thresholds=(0.5, 0.4), max_exit=3),
        Policy(mode="exit", thresholds=(0.5, 0.4), max_exit=2),
    ):
        found, expected = evaluator.answers(policy), simulate(policy, samples.logits, scaling)
        np.testing.assert_array_equal(found.confidence, expected.confidence)
        np.testing.assert_array_equal(found.correct, expected.predictions == samples.labels)


def test_left_out_answers_are_those_that_cross_validation_counted(data: TuningData) -> None:
    for candidate in data.candidates(COSTS)[::10]:
        answers = left_out_answers(data.whole, candidate)
        assert (answers.samples, answers.repeats) == (4000, 4)
        (everything,) = answers.above(np.zeros(1))
        assert everything.answered == 4000
        assert everything.correct == pytest.approx(candidate.stats.correct + 1)


@pytest.mark.parametrize(
    "goal", [Goal("max_drop", 0.01), Goal("min_accuracy", 0.6), Goal("budget", 2.0)]
)
def test_thresholds_are_those_of_the_goal_and_answers_precise(data: TuningData, goal: Goal) -> None:
    alone = choose(data, COSTS, goal)
    choice = choose_precise(data, COSTS, goal, PrecisionGoal(0.8))
    assert choice.policy.without_rejection == alone.policy
    assert (choice.stats, choice.goal) == (alone.stats, goal)
    assert choice.policy.precision_certificate is None
    answered = choice.answered
    assert answered is not None
    assert answered.precision is not None
    assert 0.8 <= answered.precision < 0.81
    low, high = answered.coverage_interval(0.95)
    assert 0.1 < low < answered.coverage < high < 0.99
    (sentence,) = choice.rejection
    assert f"With reject_below {choice.policy.reject_below:g} the policy answers" in sentence
    assert f"{100 * answered.coverage:.1f} % ({100 * low:.1f} to {100 * high:.1f})" in sentence


def test_without_another_goal_the_default_is_chosen_and_keeps_its_certificate(
    data: TuningData,
) -> None:
    choice = choose_precise(data, COSTS, None, PrecisionGoal(0.8))
    assert choice.policy.certificate is not None
    assert verify_certificate(choice.policy, data) is True
    # The samples that certify the drop have not seen the thresholds, and the drop no reject_below.
    (answered,) = data.certification.answers(choice.policy).above(
        np.array([choice.policy.reject_below])
    )
    assert choice.answered == replace(answered, correct=answered.correct - 1)


def test_a_certified_precision_is_of_the_samples_that_nothing_was_chosen_on(
    data: TuningData,
) -> None:
    for goal in (None, Goal("max_drop", 0.02, 0.9), Goal("min_accuracy", 0.6), Goal("budget", 2)):
        choice = choose_precise(data, COSTS, goal, PrecisionGoal(0.8, 0.9))
        certificate = choice.policy.precision_certificate
        assert certificate is not None
        assert (certificate.min_precision, certificate.confidence) == (0.8, 0.9)
        assert (certificate.chosen_on, certificate.samples) == (1333, 2667)
        assert certificate.reject_below == choice.policy.reject_below
        assert 0.8 <= certificate.bound < choice.answered.precision  # type: ignore
        assert choice.stats == data.certification.evaluate(choice.policy)
        assert choice.certified
        assert verify_precision(choice.policy, data) is True
        assert reproduces_precision(choice.policy, data, COSTS, Default())
        promised = choice.policy.certificate is not None
        assert promised == (goal is None or goal.confidence is not None)
        if not promised:
            # Nothing that certifies was looked at before.
            first = choose(data.without_certification, COSTS, goal or Goal())
            assert choice.policy.without_rejection == first.policy
            assert choice.promise.startswith("On 2,667 samples the policy is")
        assert choice.rejection[1] == certificate.sentence
        assert "With probability 90 %, at least 80 % of the answers" in certificate.sentence


def test_a_precision_certificate_is_verified_with_the_table(data: TuningData) -> None:
    policy = choose_precise(data, COSTS, Goal("budget", 2.0), PrecisionGoal(0.8, 0.95)).policy
    certificate = policy.precision_certificate
    assert certificate is not None

    def with_certificate(**changes: object) -> Policy:
        changed = certificate.model_copy(update=changes)
        return policy.model_copy(
            update={"precision_certificate": changed, "reject_below": changed.reject_below}
        )

    assert verify_precision(policy.without_rejection, data) is None
    assert verify_precision(with_certificate(split_sha256="1" * 64), data) is None
    for change in ({"bound": 1.0}, {"min_precision": 0.85}, {"answered": 7}, {"reject_below": 0.1}):
        assert verify_precision(with_certificate(**change), data) is False
    other = policy.model_copy(update={"thresholds": (0.0, 0.0)})
    assert verify_precision(other, data) is False
    # True, but not what the samples chosen on lead to.
    higher = certificate.reject_below + 0.01
    (stats,) = data.certification.answers(policy).above(np.array([higher]))
    moved = with_certificate(reject_below=higher, answered=int(stats.answered))
    assert not reproduces_precision(moved, data, COSTS, Default())
    assert not reproduces_precision(policy.without_rejection, data, COSTS, Default())


def test_another_reject_below_loses_the_precision_but_not_the_drop(data: TuningData) -> None:
    policy = choose_precise(data, COSTS, None, PrecisionGoal(0.8, 0.95)).policy
    content = policy.model_dump()
    with pytest.raises(ValidationError, match=r"precision_certificate is for reject_below 0\.\d+"):
        Policy.model_validate({**content, "reject_below": 0.5})
    with pytest.raises(ValidationError, match="not none"):
        Policy.model_validate({**content, "reject_below": None})
    moved = {**content, "reject_below": 0.5, "precision_certificate": None}
    assert verify_certificate(Policy.model_validate(moved), data) is True
    assert policy.override(reject_below=0.5).precision_certificate is None


@pytest.mark.parametrize("confidence", [None, 0.9])
def test_without_another_goal_the_documented_default_is_chosen(confidence: float | None) -> None:
    few = table(200)
    data = TuningData.from_table(few, fit_scaling(few), SOURCE)
    for default in (Default(last_alone=True), Default(0.05), Default(0.3, 0.9)):
        expected = choose_default(data, COSTS, default).policy
        found = choose_precise(
            data, COSTS, None, PrecisionGoal(0.5, confidence), default=default
        ).policy
        if confidence is None:
            assert found.without_rejection == expected
        else:
            assert (found.mode, found.certificate is None) == (
                expected.mode,
                expected.certificate is None,
            )


@pytest.mark.parametrize("count", [2, 3])
def test_a_certified_precision_takes_four_samples(count: int) -> None:
    samples = table(count)
    data = TuningData.from_table(samples, fit_scaling(table(50)), SOURCE)
    with pytest.raises(TuningError, match="takes at least 4 samples"):
        choose_precise(data, COSTS, None, PrecisionGoal(0.5, 0.9))


def test_without_labels_no_precision_is_known(samples: Table) -> None:
    data = TuningData.from_table(samples, fit_scaling(samples), SOURCE, "agreement")
    with pytest.raises(TuningError, match="--min-precision needs labels"):
        choose_precise(data, COSTS, None, PrecisionGoal(0.9))


@pytest.mark.parametrize(
    ("samples", "precision", "draws"),
    [(60, 0.75, 40), (120, 0.8, 40), (600, 0.9, 40), (2500, 0.9, 15)],
)
@pytest.mark.usefixtures("coarse")
def test_the_mean_precision_of_whole_choices_is_at_least_the_goal(
    cifar: tuple[PolicyEvaluator, list[float]], samples: int, precision: float, draws: int
) -> None:
    """Thresholds by a budget and reject_below, from the same samples, judged on all others."""
    population, costs = cifar
    random = np.random.default_rng(samples)
    goal = Goal("budget", 0.7 * costs[-1])
    found = []
    for _ in range(draws):
        order = random.permutation(population.samples)
        drawn, rest = divided(population.take(order[:samples])), population.take(order[samples:])
        try:
            policy = choose_precise(drawn, costs, goal, PrecisionGoal(precision)).policy
        except TuningError:
            continue
        (truth,) = rest.answers(policy).above(np.array([policy.reject_below]))
        assert truth.precision is not None
        found.append(truth.precision)
    assert len(found) > 0.8 * draws
    assert np.mean(found) >= precision - 2 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize("goal", [None, Goal("max_drop", 0.02, 0.9)])
def test_where_the_same_samples_pick_the_policy_all_that_they_could_pick_are_precise(
    goal: Goal | None,
) -> None:
    """More is withheld for that: up to a fifth of the answers, in the mean of four draws."""
    answered, alone = [], []
    for seed in range(4):
        samples = table(seed=seed)
        data = TuningData.from_table(samples, fit_scaling(samples), SOURCE)
        choice = choose_precise(data, COSTS, goal, PrecisionGoal(0.8, 0.9))
        policy = choice.policy
        own = data.selection.answers(policy), data.certification.answers(policy)
        limit, stats = find_certified(*own, 0.8, 0.9)  # type: ignore[misc]
        assert policy.reject_below >= limit  # type: ignore[operator]
        assert choice.answered is not None
        answered.append(choice.answered.coverage)
        alone.append(stats.coverage)
        # Policies that the samples chosen on find too far below the ensemble are not among them.
        assert any(data.selection.evaluate(c.policy).drop > 0.02 for c in choice.alternatives)
    assert 0.8 * np.mean(alone) < np.mean(answered) < np.mean(alone)


def test_certified_choices_fail_no_more_often_than_stated(
    synthetic: PolicyEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drop and precision, certified on the same samples: each fails by itself as often as stated at most."""
    monkeypatch.setattr("exports.tuning.path.frontier", partial(frontier, max_policies=49))
    # The sentence of a refusal needs a search of its own.
    monkeypatch.setattr("exports.tuning.selective.choose._without_promise", lambda *_: "")
    goal, precision = Goal("max_drop", 0.03, 0.9), PrecisionGoal(0.75, 0.9)
    random = np.random.default_rng(0)
    certified = failures = drops = 0
    trials = 100
    for _ in range(trials):
        drawn = divided(synthetic.take(random.integers(0, synthetic.samples, 600)))
        try:
            found = choose_precise(drawn, COSTS, goal, precision).policy
        except TuningError:
            continue
        certified += 1
        (truth,) = synthetic.answers(found).above(np.array([found.reject_below]))
        failures += truth.correct < precision.min_precision * truth.answered
        drops += synthetic.evaluate(found).drop > goal.value
    assert certified > 0.3 * trials
    most = binom.ppf(0.999, trials, 0.1)
    assert failures <= most
    assert drops <= most
