"""How soon drift of the ResNet-18 bundle is reported, and how long clean images are not.

    OFFRAMP_DATA=data python -m benchmarks.promises.drift          # some minutes on one core

The test images of CIFAR-100, clean and corrupted, run through the ResNet-18 bundle. In every trial a random
number of clean answers comes before the corrupted ones. Then clean answers, drawn with replacement, come at
the highest rate that is tested for a month. Writes a JSON file; `--write-docs` puts it into the guide and
measures nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import RESNET18_INT8, RESNET18_LINK
from benchmarks.harness.corruptions import Images, blur, contrast, jpeg
from benchmarks.harness.docs import publish, table
from exports.bundle.reader import Table, load_bundle, load_table
from exports.stage_runner import StageRunner
from serving.drift.monitor import ANSWERS_PER_S
from serving.drift.reference import Answers, Reference
from serving.drift.state import DriftState
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

RESULTS = Path(__file__).parents[1]
CORRUPTIONS: dict[str, Callable[[Images], Images]] = {
    "JPEG, quality 90": partial(jpeg, quality=90),
    "JPEG, quality 80": jpeg,
    "contrast 0.5": contrast,
    "blur, 0.6 pixels": blur,
}
MAX_BEFORE = 4_000
CORRUPTED = 5_000
STEP = 5
MONTH_S = 30 * 24 * 3600


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--days", type=float, default=30, help="of clean answers")
    parser.add_argument("--json", type=Path, default=RESULTS / "drift.json")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/operations.md", "drift")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written."""
    bundle = load_bundle(RESNET18_INT8)
    manifest, policy = bundle.manifest, bundle.policy
    reference = Reference(load_table(RESNET18_INT8, manifest), policy, manifest)
    test = load_dataset(DataRecipe(name="cifar100", held_out=1), arguments.data).test
    runner = StageRunner(bundle.stages)

    def answers(images: Images) -> Answers:
        logits = Table(runner.logits(images), test.labels)
        return Reference(logits, policy, manifest).answers

    clean = answers(test.images)
    rows = []
    for name, corrupt in CORRUPTIONS.items():
        corrupted = answers(corrupt(test.images))
        found = [delay(reference, clean, corrupted, seed) for seed in range(arguments.trials)]
        rows.append(summary(name, found))
        print(rows[-1], flush=True)
    state = DriftState(reference, seed=0)
    rng = np.random.default_rng(0)
    tested, alarms = int(arguments.days / 30 * MONTH_S * ANSWERS_PER_S), 0
    for start in range(0, tested, 100_000):
        drawn = rng.integers(0, len(clean.exits), min(100_000, tested - start))
        alarms += len(state.update(clean.take(drawn)))
    return {"trials": arguments.trials, "rows": rows, "clean": {"tested": tested, "alarms": alarms}}


def delay(reference: Reference, clean: Answers, corrupted: Answers, seed: int) -> int | None:
    """After how many corrupted answers the first alarm came; None if none came."""
    rng = np.random.default_rng(seed)
    state = DriftState(reference, seed=seed)
    before = rng.integers(0, len(clean.exits), rng.integers(0, MAX_BEFORE))
    state.update(clean.take(before))
    order = rng.permutation(len(corrupted.exits))[:CORRUPTED]
    for start in range(0, CORRUPTED, STEP):
        if state.update(corrupted.take(order[start : start + STEP])):
            return start + STEP
    return None


def summary(name: str, delays: Sequence[int | None]) -> dict[str, Any]:
    """The quantiles of `delays`, with None as more than CORRUPTED."""
    ordered = sorted(CORRUPTED + 1 if value is None else value for value in delays)
    count = len(ordered)
    return {
        "images": name,
        "median": ordered[count // 2],
        "nine_of_ten": ordered[min(9 * count // 10, count - 1)],
        "longest": ordered[-1],
        "within_300": sum(value <= 300 for value in ordered) / count,
        "within_1000": sum(value <= 1000 for value in ordered) / count,
    }


def section(result: dict[str, Any]) -> str:
    """The section of the guide."""
    head = ("images", "median", "9 of 10", "longest", "within 300", "within 1,000")
    keys = ("images", "median", "nine_of_ten", "longest")
    rows = [
        [row[key] for key in keys] + [f"{row[key]:.0%}" for key in ("within_300", "within_1000")]
        for row in result["rows"]
    ]
    clean = result["clean"]
    return (
        f"Answers of {RESNET18_LINK} until the first alarm, over {result['trials']} random orders of "
        "CIFAR-100's test images (`python -m benchmarks.promises.drift`):\n\n"
        f"{table(head, rows)}\n\n"
        f"Among {clean['tested']:,} answers to clean images, as many as are tested in 30 days, "
        f"{clean['alarms'] or 'no'} alarm{'' if clean['alarms'] == 1 else 's'} came.\n"
    )


if __name__ == "__main__":
    main()
