"""Checks the expected effect that `offramp tune --from` prints against samples that it did not see.

    python -m benchmarks.promises.proposals          # minutes on one core

Draws of n samples from the calibration table of the ResNet-18 bundle stand for recorded requests with labels.
For each a policy is proposed in the place of the bundle's, at most half a point below the ensemble by
cross-validation; the samples that are left give the true effect. Writes a JSON file; `--write-docs` puts it
into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import RESNET18_INT8, RESNET18_LINK
from benchmarks.harness.docs import publish, table
from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest, read_policy
from exports.tuning.goal import Goal, TuningData
from exports.tuning.proposal.effect import expected_effect
from exports.tuning.search import PolicyEvaluator
from exports.tuning.select import choose

RESULTS = Path(__file__).parents[1]
SIZES = (600, 1_200)
GOAL = Goal("max_drop", 0.005)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--json", type=Path, default=RESULTS / "proposals.json")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/tuning.md", "proposals")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written: a row for every size."""
    manifest = read_manifest(RESNET18_INT8)
    evaluator = PolicyEvaluator.from_table(load_table(RESNET18_INT8, manifest), manifest.scaling)
    in_force = read_policy(RESNET18_INT8, manifest)
    costs = [float(entry.macs) for entry in manifest.exits]
    inputs = manifest.inputs
    rows = [row(evaluator, in_force, costs, inputs, samples, arguments.draws) for samples in SIZES]
    return {"draws": arguments.draws, "samples": evaluator.samples, "rows": rows}


def row(
    evaluator: PolicyEvaluator,
    in_force: Policy,
    costs: list[float],
    inputs: Sequence[str],
    samples: int,
    draws: int,
) -> dict[str, Any]:
    """Expected and true changes, in points and shares, over `draws` draws of `samples` samples."""
    random = np.random.default_rng(samples)
    found = []
    for _ in range(draws):
        order = random.permutation(evaluator.samples)
        drawn, others = evaluator.take(order[:samples]), evaluator.take(order[samples:])
        data = TuningData(drawn, drawn, drawn, "0" * 64, "labels")
        choice = choose(data, costs, GOAL)
        effect = expected_effect(data, choice, in_force, {"macs": costs}, inputs)
        before, after = others.evaluate(in_force), others.evaluate(choice.policy)
        cost, (low, high) = effect.cost_changes["macs"]
        true_change = after.accuracy - before.accuracy
        true_cost = after.mean_cost(costs) / before.mean_cost(costs) - 1
        least, most = effect.accuracy_interval
        found.append(
            [
                100 * effect.accuracy_change,
                100 * true_change,
                least <= true_change <= most,
                100 * cost,
                100 * true_cost,
                low <= true_cost <= high,
            ]
        )
    values = np.array(found, dtype=np.float64)
    errors = values[:, 0] - values[:, 1]
    expected, true, held, cost, true_cost, cost_held = values.mean(axis=0).round(4).tolist()
    return {
        "samples": samples,
        "expected": expected,
        "true": true,
        "error": round(float(errors.std() / draws**0.5), 4),
        "held": held,
        "expected_cost": cost,
        "true_cost": true_cost,
        "cost_held": cost_held,
    }


def section(result: dict[str, Any]) -> str:
    """The table of the guide."""
    rows = [
        [
            f"{found['samples']:,}",
            f"{found['expected']:+.2f}",
            f"{found['true']:+.2f} ± {found['error']:.2f}",
            f"{found['held']:.0%}",
            f"{found['expected_cost']:+.1f} %",
            f"{found['true_cost']:+.1f} %",
            f"{found['cost_held']:.0%}",
        ]
        for found in result["rows"]
    ]
    head = ["labelled samples", "expected change, points", "true change", "within the interval"]
    head += ["expected change of the cost", "true change of the cost", "within its interval"]
    return (
        table(head, rows)
        + f"\n\nMeans of {result['draws']} draws from {result['samples']:,} samples "
        f"of {RESNET18_LINK}, the rest of which gives the true change; "
        "`python -m benchmarks.promises.proposals`\n"
    )


if __name__ == "__main__":
    main()
