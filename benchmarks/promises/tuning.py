"""Checks what `offramp tune` promises against images that it did not see.

    OFFRAMP_DATA=data python -m benchmarks.promises.tuning          # some minutes on one core

The held-out samples and the test images of CIFAR-100, 15,000 in all, run through the ResNet-18 bundle. Draws
of n of them are tuned for each goal; the others give the true drop and cost. Writes a JSON file;
`--write-docs` puts it into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import RESNET18_INT8, RESNET18_LINK
from benchmarks.harness.docs import publish, table
from exports.bundle.errors import TuningError
from exports.bundle.reader import Table, load_bundle, load_table
from exports.stage_runner import StageRunner
from exports.tuning.certificate import selection_size
from exports.tuning.goal import Goal, TuningData
from exports.tuning.search import PolicyEvaluator
from exports.tuning.select import choose
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

RESULTS = Path(__file__).parents[1]
SIZES = (60, 120, 600, 1200, 5000)
GOALS = (0.005, 0.01, 0.02, 0.05)
CERTIFIED = (0.005, 0.01)
CONFIDENCE = 0.95


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--json", type=Path, default=RESULTS / "tuning.json")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/tuning.md", "tuning")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written: a row for every size and goal."""
    population, costs = prepare(arguments.data)
    goals = [Goal("max_drop", drop) for drop in GOALS]
    goals += [Goal("max_drop", drop, CONFIDENCE) for drop in CERTIFIED]
    rows = []
    for size in SIZES:
        outcomes = [draw(population, costs, size, goals, seed) for seed in range(arguments.draws)]
        for goal, found in zip(goals, zip(*outcomes, strict=True), strict=True):
            rows.append(summary(size, goal, found))
            print(rows[-1], flush=True)
    return {"draws": arguments.draws, "samples": population.samples, "rows": rows}


def prepare(data: Path, path: Path = RESNET18_INT8) -> tuple[PolicyEvaluator, list[float]]:
    """All samples of the bundle in `path`, with the data set's files under `data`, and the cost of leaving at
    each exit, as a share of full depth's."""
    bundle = load_bundle(path)
    held_out = load_table(path, bundle.manifest)
    test = load_dataset(DataRecipe(name="cifar100", held_out=1), data).test
    logits = StageRunner(bundle.stages).logits(test.images)
    pooled = Table(
        np.concatenate([held_out.logits, logits], axis=1),
        np.concatenate([held_out.labels, test.labels]),
    )
    full = bundle.manifest.exits[-1].macs
    costs = [entry.macs / full for entry in bundle.manifest.exits]
    return PolicyEvaluator.from_table(pooled, bundle.manifest.scaling), costs


@dataclass(frozen=True)
class Outcome:
    """A choice: true drop and cost on the other samples, and the estimate, None if not supported."""

    drop: float
    cost: float
    estimate: float | None
    covered: bool


def draw(
    population: PolicyEvaluator,
    costs: Sequence[float],
    size: int,
    goals: Sequence[Goal],
    seed: int,
    chosen_on: int | None = None,
) -> list[Outcome]:
    """The outcome of every goal, chosen from one draw of `size` samples, of which the policies that are
    certified are chosen on `chosen_on`."""
    order = np.random.default_rng((size, seed)).permutation(population.samples)
    drawn, rest = population.take(order[:size]), population.take(order[size:])
    first = selection_size(size) if chosen_on is None else chosen_on
    selection, certification = drawn.take(np.arange(first)), drawn.take(np.arange(first, size))
    data = TuningData(drawn, selection, certification, "0" * 64, "labels")
    outcomes = []
    for goal in goals:
        try:
            choice = choose(data, costs, goal)
        except TuningError:  # no certificate: full depth
            outcomes.append(Outcome(0.0, 1.0, None, False))
            continue
        truth = rest.evaluate(choice.policy)
        low, high = choice.stats.drop_interval(0.95)
        estimate = None if choice.notes else 100 * choice.stats.drop
        cost = truth.mean_cost(costs)
        outcomes.append(Outcome(100 * truth.drop, cost, estimate, low <= truth.drop <= high))
    return outcomes


def summary(size: int, goal: Goal, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means over draws; drops in points, costs as a share of full depth's."""
    supported = [outcome for outcome in outcomes if outcome.estimate is not None]
    drops = np.array([outcome.drop for outcome in outcomes])

    def mean(values: Sequence[float]) -> float | None:
        return round(float(np.mean(values)), 4) if values else None

    return {
        "samples": size,
        "goal": 100 * goal.value,
        "confidence": goal.confidence,
        "supported": len(supported) / len(outcomes),
        "drop": round(float(drops.mean()), 4),
        "drop_error": round(float(drops.std()) / len(drops) ** 0.5, 4),
        "drop_if_supported": mean([outcome.drop for outcome in supported]),
        "broken": round(float((drops > 100 * goal.value).mean()), 4),
        "estimate": mean(
            [outcome.estimate for outcome in supported if outcome.estimate is not None]
        ),
        "covered": mean([float(outcome.covered) for outcome in supported]),
        "cost": mean([outcome.cost for outcome in outcomes]),
    }


def section(result: dict[str, Any]) -> str:
    """Two tables: mean drops without a confidence, and certificates."""
    plain, certified = [], []
    for row in result["rows"]:
        head = [f"{row['samples']:,}", f"{row['goal']:g}", f"{row['supported']:.0%}"]
        if row["confidence"] is None:
            drop = f"{row['drop']:.2f} ± {row['drop_error']:.2f}"
            estimate = "" if row["estimate"] is None else f"{row['estimate']:.2f}"
            given = "" if row["drop_if_supported"] is None else f"{row['drop_if_supported']:.2f}"
            plain.append([*head, drop, given, estimate, f"{row['cost']:.2f}"])
        elif row["supported"]:
            certified.append([*head, f"{row['broken']:.0%}", f"{row['cost']:.2f}"])
    supported = "supported, of draws"
    return (
        table(
            [
                *("samples", "goal, points", supported, "mean drop", "where supported"),
                *("estimated", "mean cost"),
            ],
            plain,
        )
        + f"\n\nWith {CONFIDENCE:.0%} confidence:\n\n"
        + table(["samples", "goal, points", supported, "broken", "mean cost"], certified)
        + f"\n\n{result['draws']} draws from {result['samples']:,} samples of {RESNET18_LINK}; "
        "costs are shares of full depth's; `OFFRAMP_DATA=data python -m benchmarks.promises.tuning`\n"
    )


if __name__ == "__main__":
    main()
