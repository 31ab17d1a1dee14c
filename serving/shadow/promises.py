"""How often samples that leave at an exit must agree with full depth, and which threshold keeps that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exports.bundle.policy import Policy, Scaling
from exports.bundle.reader import Table
from exports.tuning.goal import DEFAULT_DROP
from exports.tuning.search import NEVER, full_depth
from exports.tuning.simulation import simulate
from exports.tuning.statistics.binomial import proportion_bound

# Of all exits of a policy together: the probability that a threshold is ever raised although images are like
# those of the table. One half is for the limits on the table, whose samples are few, the other for the
# sequences.
ERROR = 0.01
# A threshold is raised at least so far that this share of the shadows of its exit goes deeper.
MIN_STEP = 0.1
# Thresholds have six decimals, which survive float32.
STEPS = 1e6


@dataclass(frozen=True)
class Promise:
    """Of exit `exit_`, from 1: its agreement with the ensemble of all exits on the `samples` of the table
    that leave there, None without any; and the least agreement that is promised."""

    exit_: int
    samples: int
    agreement: float | None
    promised: float


def checked_exits(policy: Policy) -> list[int]:
    """The exits of `policy` whose threshold lets samples leave."""
    return [
        exit_
        for exit_ in range(1, policy.max_exit)
        if policy.mode == "early_exit" and policy.may_leave(exit_)
    ]


def promises(policy: Policy, table: Table, scaling: Scaling) -> list[Promise]:
    """The promise of each of `checked_exits`.

    An exit may differ from the ensemble as often as the upper confidence limit on the table allows (Clopper
    and Pearson 1934), and by the permitted drop of the policy's certificate more, or by that of the default
    policy. A sample that differs loses at most one right answer, so an exit that keeps its promise loses
    at most the permitted drop more than on the table.
    """
    exits = checked_exits(policy)
    answers = simulate(policy, table.logits, scaling)
    deepest = simulate(full_depth(policy.exits), table.logits, scaling)
    differs = answers.predictions != deepest.predictions
    certificate = policy.certificate
    permitted = DEFAULT_DROP if certificate is None else certificate.permitted_drop / 100
    found = []
    for exit_ in exits:
        here = answers.exits == exit_
        samples = int(np.count_nonzero(here))
        differed = int(np.count_nonzero(differs & here))
        most = permitted + proportion_bound(differed, samples, 1 - ERROR / 2 / len(exits))
        agreement = 1 - differed / samples if samples else None
        found.append(Promise(exit_, samples, agreement, max(1 - most, 0.0)))
    return found


def supported_threshold(
    shadows: Sequence[tuple[float, bool]], promised: float, present: float
) -> float:
    """The least threshold above `present` at which `shadows` keep the promise; NEVER if there is none.

    Each has the value of its measure at the exit, and whether it agrees. At least the share MIN_STEP of them
    is below the threshold. One that differs is added to those above, because the threshold that is picked
    looks better than it is.
    """
    values = np.array([measured for measured, _ in shadows], dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    values = values[order]
    differed = np.cumsum(~np.array([agrees for _, agrees in shadows], dtype=np.bool_)[order])
    kept = np.arange(1, len(values) + 1)
    # Samples of one value leave together.
    ends = np.append(values[1:] < values[:-1], True)
    most = (1 - MIN_STEP) * len(values)
    fits = ends & (kept <= most) & (differed + 1 <= (1 - promised) * (kept + 1))
    for place in reversed(np.flatnonzero(fits).tolist()):
        threshold = math.ceil(float(values[place]) * STEPS) / STEPS
        if threshold > present:
            return threshold
    return NEVER
