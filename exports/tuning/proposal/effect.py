"""What a proposed policy changes, compared with the policy in force on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Policy
from exports.tuning.goal import INTERVAL_CONFIDENCE, Choice, TuningData, Unit
from exports.tuning.path import Candidate, left_out_answers
from exports.tuning.search import PolicyEvaluator
from exports.tuning.statistics.binomial import proportion_interval
from exports.tuning.statistics.policy_stats import PolicyStats
from exports.tuning.statistics.score_test import drop_interval

Interval = tuple[float, float]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """The expected effect of a policy on N samples: `proposed` is judged on samples that it was not chosen
    on, `in_force` on the same.

    `accuracy_change` is a share with its interval. `mean_costs` are of a sample in force and as proposed,
    `cost_changes` are relative to the first.
    Intervals are approximate, of INTERVAL_CONFIDENCE, and do not include the luck of the search.
    """

    proposed: PolicyStats
    in_force: PolicyStats
    accuracy_change: float
    accuracy_interval: Interval
    mean_costs: Mapping[Unit, tuple[float, float]]
    cost_changes: Mapping[Unit, tuple[float, Interval]]


def expected_effect(
    data: TuningData,
    choice: Choice,
    in_force: Policy,
    costs: Mapping[Unit, Sequence[float]],
    inputs: Sequence[str],
) -> Effect:
    """The effect of putting the policy of `choice`, which was chosen from `data`, in the place of `in_force`;
    `costs` [K] are those of leaving at each exit of stages that take `inputs`."""
    measured = data.certification if choice.certified else data.whole
    before = measured.evaluate(in_force)
    losses, gains = _paired(measured, choice, in_force)
    low, high = drop_interval(losses, gains, measured.samples, INTERVAL_CONFIDENCE)
    means: dict[Unit, tuple[float, float]] = {}
    changes: dict[Unit, tuple[float, Interval]] = {}
    for unit, exit_costs in costs.items():
        old, new = (policy.costs(inputs, exit_costs) for policy in (in_force, choice.policy))
        means[unit] = before.mean_cost(old), choice.stats.mean_cost(new)
        changes[unit] = _cost_change(
            np.asarray(old)[measured.exit_index(in_force)],
            np.asarray(new)[measured.exit_index(choice.policy)],
        )
    change = (gains - losses) / measured.samples
    return Effect(choice.stats, before, change, (-high, -low), means, changes)


def interval_of(stats: PolicyStats) -> Interval:
    """An approximate interval of the accuracy (Wilson 1927)."""
    return proportion_interval(stats.correct, stats.samples, INTERVAL_CONFIDENCE)


def _paired(measured: PolicyEvaluator, choice: Choice, in_force: Policy) -> tuple[float, float]:
    """The samples that `in_force` answers correctly and the proposed policy does not, and the reverse.

    If the policy was cross-validated, each sample is answered by policies that were chosen without it, and
    one loss is added as in `exports.tuning.path.cross_validated_path`.
    """
    candidate = _cross_validated(choice)
    if candidate is None:
        proposed, current = measured.answers(choice.policy), measured.answers(in_force)
        repeats, added = 1, 0
    else:
        same = replace(candidate, fold_policies=(in_force,) * len(candidate.fold_policies))
        proposed = left_out_answers(measured, candidate)
        current = left_out_answers(measured, same)
        repeats, added = proposed.repeats, 1
    losses = int(np.count_nonzero(current.correct & ~proposed.correct)) / repeats
    gains = int(np.count_nonzero(proposed.correct & ~current.correct)) / repeats
    return losses + added, gains


def _cross_validated(choice: Choice) -> Candidate | None:
    """The candidate that was chosen, if its results are of samples left out."""
    if choice.certified:
        return None
    rule = choice.policy.without_rejection
    for candidate in choice.alternatives:
        if candidate.fold_policies and candidate.policy.without_rejection == rule:
            return candidate
    return None


def _cost_change(before: Numbers, after: Numbers) -> tuple[float, Interval]:
    """The relative change of the mean cost of the same samples, and its interval by the delta method of a
    ratio of means."""
    ratio = float(after.mean() / before.mean())
    deviation = float((after - ratio * before).std() / before.mean())
    half = NormalDist().inv_cdf((1 + INTERVAL_CONFIDENCE) / 2) * deviation / len(before) ** 0.5
    return ratio - 1, (ratio - 1 - half, ratio - 1 + half)
