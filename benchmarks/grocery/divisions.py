"""How much the figures depend on which half of the test split policies are chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.grocery.images import random_halves
from benchmarks.grocery.policies import Aim, calibration_table, choose, judge, points_lost
from exports.bundle.reader import Table


def over_divisions(
    val: Table, test: Table, costs: Sequence[int], aim: Aim, divisions: int
) -> dict[str, Any]:
    """Policies for `aim` chosen on `val` and a random half of `test`, and judged on the other half, for each
    of `divisions` seeds: means, and the range of the points that are lost beside the last network alone."""
    found = []
    for seed in range(divisions):
        chosen_on, judged_on = (test.take(part) for part in random_halves(len(test.labels), seed))
        logits = np.concatenate([val.logits, chosen_on.logits], axis=1)
        labels = np.concatenate([val.labels, chosen_on.labels])
        chosen = choose(calibration_table(logits, labels, aim), costs, aim)
        one = judge(chosen.policy, chosen.scaling, judged_on, costs)
        found.append(one | {"points_lost": points_lost(one, len(judged_on.labels))})
    losses = [one["points_lost"] for one in found]
    return {
        "divisions": divisions,
        **{
            key: round(float(np.mean([one[key] for one in found])), 3)
            for key in ("cost", "accuracy", "agreement", "points_lost")
        },
        "points_lost_range": [round(min(losses), 2), round(max(losses), 2)],
    }
