"""Properties of policies for any logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from exports.bundle.certificate import Certificate
from exports.bundle.errors import PolicyError
from exports.bundle.policy import (
    Decision,
    Floats,
    Measure,
    Policy,
    Scaling,
    measure_confidence,
    running_ensemble,
    softmax,
)
from exports.tuning.simulation import simulate
from tests.exports.policies import (
    CERTIFICATE,
    EXITS,
    MEASURES,
    policies,
    scalings,
    tables,
)


@given(policies, tables, scalings, st.data())
def test_a_samples_exit_does_not_depend_on_the_batch(
    policy: Policy, logits: Floats, scaling: Scaling, data: st.DataObject
) -> None:
    together = simulate(policy, logits, scaling)
    chosen = data.draw(st.lists(st.integers(0, logits.shape[1] - 1), min_size=1, max_size=6))
    alone = simulate(policy, logits[:, chosen], scaling)
    assert alone.exits.tolist() == together.exits[chosen].tolist()
    assert alone.predictions.tolist() == together.predictions[chosen].tolist()
    assert alone.confidence.tolist() == together.confidence[chosen].tolist()


@given(policies, tables, scalings)
def test_at_threshold_zero_every_sample_leaves_at_exit_one(
    policy: Policy, logits: Floats, scaling: Scaling
) -> None:
    always = policy.override(mode="early_exit", threshold=0.0)
    assert set(simulate(always, logits, scaling).exits) == {1}


@given(policies, tables, scalings, st.floats(1.0001, 1e6))
def test_above_threshold_one_every_sample_reaches_the_deepest_exit(
    policy: Policy, logits: Floats, scaling: Scaling, threshold: float
) -> None:
    never = policy.override(mode="early_exit", threshold=threshold)
    assert set(simulate(never, logits, scaling).exits) == {policy.max_exit}


@given(policies, tables, scalings, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_leaves_earlier(
    policy: Policy, logits: Floats, scaling: Scaling, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    early = policy.override(mode="early_exit", threshold=low)
    late = policy.override(mode="early_exit", threshold=high)
    before = simulate(early, logits, scaling).exits
    assert (before <= simulate(late, logits, scaling).exits).all()


@given(policies, tables, scalings, st.floats(0.99999, 1.00001))
def test_where_no_sample_may_leave_none_does(
    policy: Policy, logits: Floats, scaling: Scaling, threshold: float
) -> None:
    near = policy.override(threshold=threshold)
    for chosen in (policy, near):
        for exit_ in range(1, EXITS + 1):
            decision = Decision(chosen, exit_, list(logits[:exit_]), scaling)
            assert chosen.may_leave(exit_) or not decision.leaves.any()


@given(policies, tables, scalings)
def test_every_sample_leaves_at_or_before_the_deepest_exit(
    policy: Policy, logits: Floats, scaling: Scaling
) -> None:
    outcome = simulate(policy, logits, scaling)
    assert ((outcome.exits >= 1) & (outcome.exits <= policy.max_exit)).all()
    assert sum(outcome.shares(EXITS)) == pytest.approx(1)
    if policy.mode != "early_exit":
        assert set(outcome.exits) == {policy.max_exit}


@given(tables, scalings, st.integers(1, EXITS))
def test_mode_exit_answers_from_that_exit_alone(
    logits: Floats, scaling: Scaling, exit_: int
) -> None:
    policy = Policy(mode="exit", thresholds=(0.5,) * (EXITS - 1), max_exit=exit_)
    expected = softmax(logits[exit_ - 1] / np.float32(scaling.temperatures[exit_ - 1]))
    assert simulate(policy, logits, scaling).predictions.tolist() == expected.argmax(1).tolist()


@given(tables, scalings)
def test_mode_ensemble_answers_from_the_weighted_mean_of_all_exits(
    logits: Floats, scaling: Scaling
) -> None:
    policy = Policy(mode="ensemble", combine="single", thresholds=(0.0,) * 3, max_exit=EXITS)
    mean = running_ensemble(list(logits), EXITS, scaling.weights)
    expected = softmax(mean / np.float32(scaling.running_temperatures[-1])).argmax(1)
    assert simulate(policy, logits, scaling).predictions.tolist() == expected.tolist()


@given(tables, st.sampled_from(MEASURES))
def test_confidence_lies_between_zero_and_one(logits: Floats, measure: Measure) -> None:
    confidence = measure_confidence(softmax(logits[0]), measure)
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_the_measures_equal_values_computed_by_hand() -> None:
    p = np.array([[0.5, 0.25, 0.25]], dtype=np.float32)
    entropy = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert measure_confidence(p, "max_prob").tolist() == [0.5]
    assert measure_confidence(p, "margin").tolist() == [0.25]
    assert measure_confidence(p, "entropy")[0] == pytest.approx(1 - entropy / math.log(3), abs=1e-6)


def test_a_sample_leaves_if_its_confidence_equals_the_threshold() -> None:
    logits = np.log(np.array([[[0.5, 0.5]], [[0.5, 0.5]]], dtype=np.float32))
    scaling = Scaling((1, 1), (1, 1), (0.5, 0.5))
    policy = Policy(thresholds=(0.5,), max_exit=2)
    assert Decision(policy, 1, [logits[0]], scaling).leaves.tolist() == [True]
    above = policy.override(threshold=0.500001)
    assert Decision(above, 1, [logits[0]], scaling).leaves.tolist() == [False]


def test_the_running_ensemble_is_the_weighted_mean_of_the_exits_so_far() -> None:
    logits = [np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 4.0]], np.float32)]
    mean = running_ensemble(logits, 2, (1.0, 3.0))
    assert mean.tolist() == [[0.25, 3.0]]
    assert running_ensemble(logits, 1, (1.0, 3.0)).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": [-0.1], "max_exit": 2},
        {"thresholds": [float("nan")], "max_exit": 2},
        {"thresholds": [0.5], "max_exit": 3},
        {"thresholds": [0.5], "max_exit": 0},
        {"thresholds": [0.5], "max_exit": 2, "mode": "sometimes"},
        {"thresholds": [0.5], "max_exit": 2, "treshold": 1},
    ],
)
def test_a_malformed_policy_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(change)


@given(policies, tables, scalings, st.floats(0, 1))
def test_reject_below_changes_no_exit_and_rejects_by_calibrated_probability(
    policy: Policy, logits: Floats, scaling: Scaling, least: float
) -> None:
    rejecting = policy.override(reject_below=least)
    assert simulate(rejecting, logits, scaling).exits.tolist() == (
        simulate(policy, logits, scaling).exits.tolist()
    )
    decision = Decision(rejecting, 1, [logits[0]], scaling)
    confidence = decision.probabilities.max(axis=-1)
    assert decision.unsure.tolist() == (confidence < np.float32(least)).tolist()


def test_a_policy_without_reject_below_is_never_unsure() -> None:
    policy = Policy.model_validate({"thresholds": [0.5], "max_exit": 2})
    assert policy.reject_below is None
    level = np.zeros((3, 4), np.float32)
    scaling = Scaling((1.0, 1.0), (1.0, 1.0), (0.5, 0.5))
    assert not Decision(policy, 1, [level], scaling).unsure.any()
    # A quarter each: float32 holds it exactly, and equality is enough for a label.
    for least, unsure in ((0.0, False), (0.25, False), (0.250001, True), (1.0, True)):
        rejecting = policy.override(reject_below=least)
        assert set(Decision(rejecting, 1, [level], scaling).unsure.tolist()) == {unsure}


@pytest.mark.parametrize(
    "override",
    [{"max_exit": 5}, {"max_exit": 0}, {"threshold": -1.0}, {"reject_below": 1.1}],
)
def test_an_override_out_of_range_is_refused(override: dict[str, int]) -> None:
    policy = Policy(thresholds=(0.5,) * 3, max_exit=4)
    with pytest.raises(PolicyError, match="must be"):
        policy.override(**override)  # type: ignore[arg-type]


def test_a_certificate_is_kept_in_the_file_and_without_overrides() -> None:
    policy = Policy(thresholds=(0.5,) * 3, max_exit=4, certificate=CERTIFICATE)
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert policy.override().certificate == CERTIFICATE
    assert CERTIFICATE.against == "ensemble"


@pytest.mark.parametrize(
    "override", [{"mode": "exit"}, {"threshold": 0.5}, {"max_exit": 4}, {"reject_below": 0.5}]
)
def test_any_override_drops_the_certificate(override: dict[str, str]) -> None:
    policy = Policy(thresholds=(0.5,) * 3, max_exit=4, certificate=CERTIFICATE)
    assert policy.override(**override).certificate is None  # type: ignore[arg-type]


def test_policies_that_differ_only_in_their_certificate_have_equal_hashes_but_are_not_equal() -> (
    None
):
    bare = Policy(thresholds=(0.5,) * 3, max_exit=4)
    certified = bare.model_copy(update={"certificate": CERTIFICATE})
    assert hash(bare) == hash(certified)
    assert bare != certified
    assert {bare: 1, certified: 2}[certified] == 2


@pytest.mark.parametrize(
    "change", [{"confidence": 1.0}, {"bound": -1}, {"split_sha256": "x"}, {"samples": 0}, {"n": 1}]
)
def test_a_malformed_certificate_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Certificate.model_validate(CERTIFICATE.model_dump() | change)


def test_thresholds_are_raised_and_never_lowered() -> None:
    policy = Policy(thresholds=(0.5, 0.6, 0.7), max_exit=4, certificate=CERTIFICATE)
    raised = policy.raised({1: 0.4, 2: 0.9, 3: 2.0})
    assert raised.thresholds == (0.5, 0.9, 2.0)
    assert raised.certificate is None
