"""Accuracy against coverage: what a policy answers at every `reject_below`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from exports.bundle.policy import Policy
from exports.bundle.schema_types import Interval
from exports.tuning.goal import INTERVAL_CONFIDENCE
from exports.tuning.search import PolicyEvaluator
from exports.tuning.selective.rejection import limits
from exports.tuning.statistics.answers import AnsweredStats

CURVE_POINTS = 100
DECIMALS = 4


@dataclass(frozen=True)
class CoveragePoint:
    """A `reject_below` and its effect: the share of samples that is answered in percent, the accuracy of
    these answers in percent with its approximate 95 % interval; null, and 0 to 100, without answers."""

    reject_below: float
    coverage: float
    precision: float | None
    precision_interval: Interval


@dataclass(frozen=True)
class Coverage:
    """Accuracy against coverage of one policy, from few answers to all. `estimate` says on which samples of
    the calibration table, `samples` how many these are; `policy` is at the policy's own `reject_below`."""

    samples: int
    estimate: Literal["table", "certification"]
    policy: CoveragePoint
    points: list[CoveragePoint]


def draw_coverage(
    evaluator: PolicyEvaluator, policy: Policy, estimate: Literal["table", "certification"]
) -> Coverage:
    """The curve of `policy` on the samples of `evaluator`, which `estimate` names."""
    answers = evaluator.answers(policy)
    tried = limits(answers, CURVE_POINTS)
    own = np.array([policy.reject_below or 0.0])
    points = [
        _point(float(limit), stats)
        for limit, stats in zip(
            [*own, *tried], answers.above(np.concatenate([own, tried])), strict=True
        )
    ]
    return Coverage(answers.samples, estimate, points[0], points[1:])


def _point(reject_below: float, stats: AnsweredStats) -> CoveragePoint:
    low, high = stats.precision_interval(INTERVAL_CONFIDENCE)
    return CoveragePoint(
        reject_below,
        percent(stats.coverage),
        None if stats.precision is None else percent(stats.precision),
        (percent(low), percent(high)),
    )


def percent(share: float) -> float:
    """A share as it is written: in percent, with DECIMALS."""
    return round(100 * float(share), DECIMALS)
