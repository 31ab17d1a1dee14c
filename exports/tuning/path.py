"""The order in which policies are tried, from full depth to the first exit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exports.bundle.policy import Policy
from exports.tuning.search import NEVER, FrontierPoint, PolicyEvaluator, frontier

# A policy counts as cheaper than full depth if it is so by more than rounding.
CHEAPER_THAN_FULL_DEPTH = 1 - 1e-9
# Policies between the dearest of the frontier and full depth.
SAFER_STEPS = 8


def cautious_path(evaluator: PolicyEvaluator, costs: Sequence[float]) -> list[FrontierPoint]:
    """The frontier, cheapest first, continued towards full depth by policies with higher thresholds.

    On few samples the frontier ends far from full depth, at policies that no sample speaks against. Of
    the dearest of these that is cheaper than full depth, ever smaller shares of the samples that leave at
    an exit are then let go.
    """
    points = frontier(evaluator, costs)
    cheaper = [point for point in points if point.cost < CHEAPER_THAN_FULL_DEPTH * costs[-1]]
    if not cheaper:
        return points
    path = list(cheaper)
    for step in range(1, SAFER_STEPS):
        policy = _safer(evaluator, cheaper[-1].policy, 1 - step / SAFER_STEPS)
        stats = evaluator.evaluate(policy)
        point = FrontierPoint(policy, stats.mean_cost(costs), stats.drop)
        if path[-1].cost < point.cost < CHEAPER_THAN_FULL_DEPTH * costs[-1]:
            path.append(point)
    return path + points[len(cheaper) :]


def _safer(evaluator: PolicyEvaluator, policy: Policy, share: float) -> Policy:
    """`policy` with thresholds that only `share` of the samples at or above the present ones reach."""
    thresholds = []
    for confidence, threshold in zip(
        evaluator.confidence[policy.measure, policy.combine][:-1], policy.thresholds, strict=True
    ):
        reached = float((confidence >= np.float32(min(threshold, NEVER))).mean())
        higher = float(np.quantile(confidence, 1 - share * reached)) if reached else NEVER
        thresholds.append(max(round(higher, 6), threshold))
    return policy.model_copy(update={"thresholds": tuple(thresholds)})
