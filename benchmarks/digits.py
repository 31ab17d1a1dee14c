"""Measures what the README's first example shows: a student on the digits with its teacher and without.

    python -m benchmarks.digits

Trains the teacher once, then the student of `digits-oto` with each seed: by OtO, and by cross-entropy on the
labels alone, with everything else equal. Writes a JSON file; `--write-docs` puts the table into
docs/guide/training.md and measures nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.harness import docs
from benchmarks.harness.server import machine
from training.recipes.files import load_recipe
from training.recipes.schema import Recipe, validate_recipe
from training.run import run_recipe

HERE = Path(__file__).parent
STUDENT, TEACHER = "digits-oto", "digits-teacher"
# The recipes were chosen with the seeds before.
FIRST_SEED = 5
TITLES = {"oto": "OtO", "cross_entropy": "cross-entropy alone", "difference": "OtO is better by"}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, print the table and write the JSON; or fill in the docs."""
    docs.publish(_arguments(argv), measure, section, "guide/training.md", "digits")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Test accuracy in percent of every exit, for every method and seed."""
    student = load_recipe(STUDENT)
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place)
        teacher = _train(load_recipe(TEACHER), runs)
        exits = {
            method: [_train(_variant(student, method, seed), runs) for seed in seeds]
            for method in ("oto", "cross_entropy")
        }
    return {"machine": machine(), "teacher": teacher, "exits": exits}


def section(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    taught, alone = result["exits"]["oto"], result["exits"]["cross_entropy"]
    pairs = zip(taught, alone, strict=True)
    differences = [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]
    head = ("student", *(f"exit {k}, %" for k in range(1, len(taught[0]) + 1)))
    rows = {"oto": taught, "cross_entropy": alone, "difference": differences}
    table = docs.table(head, [(TITLES[name], *_mean_and_sd(seeds)) for name, seeds in rows.items()])
    teacher = " ".join(f"{accuracy:.1f}" for accuracy in result["teacher"])
    return (
        f"{table}\n\nMean and standard deviation of {len(taught)} seeds, 400 test images; the difference is "
        f"of equal seeds. The teacher's exits: {teacher} %. {result['machine']}.\n"
    )


def _mean_and_sd(seeds: Sequence[Sequence[float]]) -> list[str]:
    """Of every exit."""
    return [f"{fmean(exit_):.1f} ± {stdev(exit_):.1f}" for exit_ in zip(*seeds, strict=True)]


def _variant(student: Recipe, method: str, seed: int) -> Recipe:
    """`student` with another seed; by cross-entropy it has no teacher."""
    content = student.model_dump(exclude_unset=True) | {"name": f"{method}-{seed}", "seed": seed}
    if method == "cross_entropy":
        content["objective"] = {"method": method}
        del content["teacher"]
    return validate_recipe(method, content)


def _train(recipe: Recipe, runs: Path) -> list[float]:
    return list(run_recipe(recipe, runs=runs, data_root=runs, device="cpu").test.exits)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=HERE / "digits.json")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
