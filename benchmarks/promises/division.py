"""Tries how many of the samples to choose on, and how many to leave for the certificate.

    OFFRAMP_DATA=data python -m benchmarks.promises.division        # ten minutes on one core

Draws of n of CIFAR-100's held-out and test images are divided, and the policy that is certified with 95 % is
judged on the images not drawn. The share was chosen on the ResNet-18 bundle; the embedded `cifar100-lite0`
judges the choice. Prints its rows.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bundles import RESNET18_INT8
from benchmarks.harness.docs import table
from benchmarks.promises.tuning import CERTIFIED, CONFIDENCE, Outcome, draw, prepare
from exports.tuning.goal import Goal
from exports.tuning.search import PolicyEvaluator

EMBEDDED = Path(__file__).parents[2] / "exports" / "embedded" / "cifar100-lite0"
SIZES = (1000, 1500, 5000)
# Of every so many samples one is chosen on.
ONE_IN = (2, 3, 4, 6, 10)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of each bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args(argv)
    for path in (RESNET18_INT8, EMBEDDED):
        population, costs = prepare(arguments.data, path)
        print(f"{path.name}: mean cost, drop in points, draws that break the promise")
        rows = [
            row(population, costs, size, goal, arguments.draws)
            for size in SIZES
            for goal in CERTIFIED
        ]
        print(table(["samples", "goal, points", *(f"1 in {n}" for n in ONE_IN)], rows), flush=True)


def row(
    population: PolicyEvaluator, costs: Sequence[float], size: int, goal: float, draws: int
) -> list[str]:
    """The outcomes of `draws` draws of `size` samples with each share of ONE_IN."""
    certified = [Goal("max_drop", goal, CONFIDENCE)]
    cells = []
    for one_in in ONE_IN:
        outcomes = [
            draw(population, costs, size, certified, seed, size // one_in)[0]
            for seed in range(draws)
        ]
        cells.append(summary(outcomes, goal))
    return [f"{size:,}", f"{100 * goal:g}", *cells]


def summary(outcomes: Sequence[Outcome], goal: float) -> str:
    """The mean cost with its standard error, the mean drop, and the share of broken promises."""
    costs = np.array([outcome.cost for outcome in outcomes])
    drops = np.array([outcome.drop for outcome in outcomes])
    error = costs.std() / len(costs) ** 0.5
    broken = (drops > 100 * goal).mean()
    return f"{costs.mean():.3f} ± {error:.3f}, {drops.mean():.2f}, {broken:.0%}"


if __name__ == "__main__":
    main()
