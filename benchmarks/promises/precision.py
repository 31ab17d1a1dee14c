"""Checks what `offramp tune --min-precision` promises against samples that it did not see.

    python -m benchmarks.promises.precision          # a minute on one core

Draws of n samples from the calibration table of the ResNet-18 bundle, at full depth. Without a confidence
the other samples give the true precision; certified limits come from draws with replacement, and the whole
table gives it. Writes a JSON file; `--write-docs` puts it into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import RESNET18_INT8, RESNET18_LINK
from benchmarks.harness.docs import publish, table
from exports.bundle.reader import load_table, read_manifest
from exports.tuning.certificate import selection_size
from exports.tuning.search import PolicyEvaluator, never_early
from exports.tuning.selective.certificate import find_certified
from exports.tuning.selective.rejection import find_reject_below
from exports.tuning.statistics.answers import AnsweredStats, Answers

RESULTS = Path(__file__).parents[1]
GOALS = (
    *((60, 0.75), (60, 0.9), (120, 0.8), (120, 0.95)),
    *((600, 0.9), (600, 0.95), (2500, 0.9), (2500, 0.95)),
)
CONFIDENCE = 0.95


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--json", type=Path, default=RESULTS / "precision.json")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/tuning.md", "precision")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written: a row for every size and goal."""
    manifest = read_manifest(RESNET18_INT8)
    evaluator = PolicyEvaluator.from_table(load_table(RESNET18_INT8, manifest), manifest.scaling)
    answers = evaluator.answers(never_early(len(manifest.exits)))
    rows = [row(answers, samples, goal, arguments.draws) for samples, goal in GOALS]
    return {"draws": arguments.draws, "samples": answers.samples, "rows": rows}


def row(answers: Answers, samples: int, goal: float, draws: int) -> dict[str, Any]:
    """The outcomes of `draws` draws of `samples` samples for the precision `goal`."""
    random = np.random.default_rng((samples, round(1000 * goal)))
    plain: list[AnsweredStats] = []
    certified: list[AnsweredStats] = []
    for _ in range(draws):
        order = random.permutation(answers.samples)
        found = find_reject_below(taken(answers, order[:samples]), goal)
        if found is not None:
            plain += taken(answers, order[samples:]).above(np.array([found[0]]))
        drawn = random.integers(0, answers.samples, samples)
        chosen_on = selection_size(samples)
        first, second = drawn[:chosen_on], drawn[chosen_on:]
        found = find_certified(taken(answers, first), taken(answers, second), goal, CONFIDENCE)
        if found is not None:
            certified += answers.above(np.array([found[0]]))
    precisions = np.array([stats.precision for stats in plain])
    broken = sum((stats.precision or 0) < goal for stats in certified)
    return {
        "samples": samples,
        "goal": goal,
        "supported": len(plain) / draws,
        "precision": round(float(precisions.mean()), 4),
        "precision_error": round(float(precisions.std() / len(plain) ** 0.5), 4),
        "coverage": round(float(np.mean([stats.coverage for stats in plain])), 4),
        "certified": len(certified) / draws,
        "broken": broken / draws,
        "certified_coverage": round(float(np.mean([s.coverage for s in certified])), 4)
        if certified
        else None,
    }


def taken(answers: Answers, index: np.ndarray) -> Answers:
    """The samples at `index`."""
    return Answers(answers.confidence[index], answers.correct[index])


def section(result: dict[str, Any]) -> str:
    """One table: without a confidence, and certified."""
    rows = []
    for found in result["rows"]:
        covered = found["certified_coverage"]
        rows.append(
            [
                f"{found['samples']:,}",
                f"{found['goal']:g}",
                f"{found['supported']:.0%}",
                f"{found['precision']:.3f} ± {found['precision_error']:.3f}",
                f"{found['coverage']:.2f}",
                f"{found['certified']:.0%}",
                f"{found['broken']:.1%}",
                "" if covered is None else f"{covered:.2f}",
            ]
        )
    head = ["samples", "goal", "supported, of draws", "mean precision where supported", "coverage"]
    head += [f"certified with {CONFIDENCE:.0%}", "broken", "coverage if certified"]
    return (
        table(head, rows) + f"\n\n{result['draws']:,} draws from {result['samples']:,} samples "
        f"of {RESNET18_LINK}; `python -m benchmarks.promises.precision`\n"
    )


if __name__ == "__main__":
    main()
