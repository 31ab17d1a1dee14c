"""What the ResNet-18 bundle's policy promises, on images that arrive changed.

    OFFRAMP_DATA=data python -m benchmarks.promises.shift          # about ten minutes on one core

The test images of CIFAR-100 run through the ResNet-18 bundle, as they are and corrupted in five ways at five
severities. The certificate is about the drop below the ensemble; it is silent about the ensemble itself.
Writes a JSON file; `--write-docs` puts it into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import RESNET18_INT8, RESNET18_LINK
from benchmarks.harness.corruptions import SEVERITIES, Images
from benchmarks.harness.docs import publish, table
from exports.bundle.reader import Bundle, load_bundle
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from training.data.dataset import Split
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

RESULTS = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--images", type=int, default=10_000, help="the first of the test split")
    parser.add_argument("--json", type=Path, default=RESULTS / "shift.json")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/tuning.md", "shift")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written."""
    bundle = load_bundle(RESNET18_INT8)
    test = load_dataset(DataRecipe(name="cifar100", held_out=1), arguments.data).test
    test = test.take(np.arange(min(arguments.images, len(test.labels))))
    runner = StageRunner(bundle.stages)
    rows = [{"images": "clean", "severity": 0, **row(bundle, runner, test, test.images)}]
    for kind, severities in SEVERITIES.items():
        for severity, corrupt in enumerate(severities, 1):
            corrupted = row(bundle, runner, test, corrupt(test.images))
            rows.append({"images": kind, "severity": severity, **corrupted})
            print(rows[-1], flush=True)
    certificate = bundle.policy.certificate
    return {
        "bundle": bundle.manifest.name,
        "images": len(test.labels),
        "permitted_drop": None if certificate is None else certificate.permitted_drop,
        "rows": rows,
    }


def row(bundle: Bundle, runner: StageRunner, test: Split, images: Images) -> dict[str, float]:
    """Accuracies and the drop in percent, the drop's standard error, cost as a share of full depth's."""
    logits, scaling = runner.logits(images), bundle.manifest.scaling
    macs = [entry.macs for entry in bundle.manifest.exits]
    early = simulate(bundle.policy, logits, scaling)
    ensemble = simulate(bundle.policy.override(mode="ensemble"), logits, scaling)
    right = ensemble.predictions == test.labels
    lost = right.astype(float) - (early.predictions == test.labels)
    return {
        "ensemble": round(100 * float(right.mean()), 2),
        "early_exit": round(100 * early.accuracy(test.labels), 2),
        "drop": round(100 * float(lost.mean()), 3),
        "error": round(100 * float(lost.std() / np.sqrt(len(lost))), 3),
        "cost": round(early.mean_cost(macs) / macs[-1], 4),
    }


def section(result: dict[str, Any]) -> str:
    """The section of the guide: a row for each kind, a column for each severity."""
    clean, *corrupted = result["rows"]
    head = ("images", "", *(f"severity {number}" for number in range(1, 6)))
    lines = []
    for kind in dict.fromkeys(entry["images"] for entry in corrupted):
        found = [entry for entry in corrupted if entry["images"] == kind]
        lines += [
            [kind, "ensemble, %", *(f"{entry['ensemble']:.1f}" for entry in found)],
            ["", "drop, points", *(f"{e['drop']:.2f} ± {e['error']:.2f}" for e in found)],
            ["", "cost", *(f"{entry['cost']:.2f}" for entry in found)],
        ]
    permitted = result["permitted_drop"]
    held = sum(entry["drop"] <= permitted for entry in corrupted)
    worst = max(corrupted, key=lambda entry: entry["drop"])
    return (
        f"`{result['bundle']}`, {RESNET18_LINK}, on {result['images']:,} test images, corrupted in five ways "
        "(`python -m benchmarks.promises.shift`). Clean: "
        f"ensemble {clean['ensemble']:.1f} %, drop {clean['drop']:.2f} ± {clean['error']:.2f} points, "
        f"cost {clean['cost']:.2f} of full depth.\n\n"
        f"{table(head, lines)}\n\n"
        f"The permitted drop of {permitted:g} points held in {held} of {len(corrupted)} cases; "
        f"the largest drop was {worst['drop']:.2f} ± {worst['error']:.2f} "
        f"({worst['images']}, severity {worst['severity']}). "
        "Images leave later when they are harder. The accuracy of the ensemble itself falls, "
        "and no certificate says anything about it.\n"
    )


if __name__ == "__main__":
    main()
