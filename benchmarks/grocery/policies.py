"""Policies chosen on some images, and judged on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from exports.bundle.certificate import Target
from exports.bundle.policy import Combine, Floats, Policy, Scaling
from exports.bundle.reader import Table, as_stored
from exports.tuning.certificate import divide
from exports.tuning.goal import Choice, Goal, TuningData
from exports.tuning.scaling import fit_agreement, fit_scaling
from exports.tuning.select import choose as choose_policy
from exports.tuning.select import default_policy
from exports.tuning.simulation import simulate

Aim = Literal["agreement", "accuracy", "half"]
# Whose answers the labels of a calibration table are, by aim.
TARGETS: dict[Aim, Target] = {"agreement": "agreement", "accuracy": "labels", "half": "labels"}
# The share of answers that may differ from the large network's, and of right answers that may be lost.
MAX_DISAGREEMENT, MAX_LOSS = 0.01, 0.005
HALF = 0.5
THRESHOLDS = np.linspace(0, 1.001, 1002)
COMBINATIONS: tuple[Combine, ...] = ("single", "running")


@dataclass(frozen=True)
class Chosen:
    """A policy with the temperatures and weights that it goes with."""

    choice: Choice
    scaling: Scaling

    @property
    def policy(self) -> Policy:
        """The chosen policy."""
        return self.choice.policy


def calibration_table(logits: Floats, labels: np.ndarray, aim: Aim) -> Table:
    """The table of a bundle with these logits, whose labels are the last network's answers under the target
    `agreement`."""
    table = as_stored(Table(logits, labels))
    if TARGETS[aim] == "labels":
        return table
    return Table(table.logits, table.logits[-1].argmax(axis=1))


def cost_alone(costs: Sequence[int]) -> int:
    """The cost of the last network alone, from the cost of leaving at each exit."""
    return costs[-1] - (costs[-2] if len(costs) > 1 else 0)


def choose(table: Table, costs: Sequence[int], aim: Aim, digest: str = "") -> Chosen:
    """The policy that a command makes of `table`, the file of which has the SHA-256 `digest`.

    agreement: `offramp front`; accuracy: `offramp cascade` with labels; half: `offramp tune --budget`, the
    most accurate at half of the last network's cost.
    """
    target = TARGETS[aim]
    first, _ = divide(len(table.labels))
    fitted_on = table.take(first)
    scaling = fit_scaling(fitted_on) if target == "labels" else fit_agreement(fitted_on, "last")
    if aim == "half" and len(costs) > 1:
        data = TuningData.from_table(table, scaling, digest, target)
        choice = choose_policy(data, costs, Goal("budget", HALF * cost_alone(costs)))
    else:
        drop = MAX_DISAGREEMENT if target == "agreement" else MAX_LOSS
        choice = default_policy(table, scaling, costs, digest, target=target, drop=drop)
    return Chosen(choice, scaling)


def judge(policy: Policy, scaling: Scaling, table: Table, costs: Sequence[int]) -> dict[str, Any]:
    """What `policy` does on `table`, beside the last network alone.

    Percent of right answers and of the last network's answers; its cost as a share of that network's; the
    answers that are right with that network and wrong with the policy (`lost`), and the other way round
    (`gained`).
    """
    outcome = simulate(policy, table.logits, scaling)
    large = table.logits[-1].argmax(axis=1)
    right, large_right = outcome.predictions == table.labels, large == table.labels
    return {
        "accuracy": _percent(right),
        "agreement": _percent(outcome.predictions == large),
        "lost": int((large_right & ~right).sum()),
        "gained": int((right & ~large_right).sum()),
        "cost": round(outcome.mean_cost(costs) / cost_alone(costs), 4),
        "shares": [round(share, 4) for share in outcome.shares(len(costs))],
    }


def points_lost(judged: dict[str, Any], samples: int) -> float:
    """The points of accuracy that a policy loses beside the last network alone, from what `judge` found."""
    return 100 * (judged["lost"] - judged["gained"]) / samples


def in_hindsight(scaling: Scaling, table: Table, costs: Sequence[int]) -> dict[str, Any]:
    """The limit of what one threshold for all exits reaches, chosen on the judged `table` itself: the least
    costs within MAX_DISAGREEMENT and MAX_LOSS, and agreement and loss in points at half of the large
    network's cost.

    Both answers from one exit and from the running ensemble are tried. A value is None if no threshold
    reaches it.
    """
    exits = len(costs)
    found = []
    for combine in COMBINATIONS:
        for threshold in THRESHOLDS.tolist():
            thresholds = (threshold,) * (exits - 1)
            policy = Policy(combine=combine, thresholds=thresholds, max_exit=exits)
            found.append(judge(policy, scaling, table, costs))

    def loss(one: dict[str, Any]) -> float:
        return points_lost(one, len(table.labels))

    agreeing = [f["cost"] for f in found if f["agreement"] >= 100 * (1 - MAX_DISAGREEMENT)]
    accurate = [f["cost"] for f in found if loss(f) <= 100 * MAX_LOSS]
    cheap = [f for f in found if f["cost"] <= HALF]
    return {
        "cost_at_agreement": min(agreeing, default=None),
        "cost_at_accuracy": min(accurate, default=None),
        "agreement_at_half": max((f["agreement"] for f in cheap), default=None),
        "loss_at_half": round(min(map(loss, cheap)), 2) if cheap else None,
    }


def _percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 2)
