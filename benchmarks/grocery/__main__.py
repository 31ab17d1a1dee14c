"""Measures a large network for the Grocery photographs alone, behind a distilled front, and as a cascade.

    offramp train benchmarks/grocery/lite2.toml --data data --runs runs-grocery
    offramp train benchmarks/grocery/lite0.toml --data data --runs runs-grocery    # optional
    python -m benchmarks.grocery data/grocery --runs runs-grocery --work work-grocery

Makes the bundles with `offramp front` and `offramp cascade`, in fp32 and int8, and trains the front if it is
missing. Without lite0.toml's run the small network of the cascade is the front's last exit. Policies are
chosen on val and a random half of the test split, and everything is judged on the other half, which nothing
was trained or chosen on. What is in --work is used again. `--seconds 0` leaves out HTTP, which needs an
otherwise idle machine. Writes a JSON file; `--write-docs` puts it into docs/guide/you-have-a-model.md and
measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.grocery.bundles import PRECISIONS, Workplace
from benchmarks.grocery.measure import measure
from benchmarks.grocery.section import section
from benchmarks.harness.docs import publish

RESULTS = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the section, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?", help="the folder with train, val and test")
    parser.add_argument("--runs", type=Path, default=Path("runs-grocery"))
    parser.add_argument("--work", type=Path, default=Path("work-grocery"))
    parser.add_argument("--seed", type=int, default=0, help="of the halves of the test split")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a rate over HTTP; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="of the rates over HTTP")
    parser.add_argument("--json", type=Path, default=RESULTS / "grocery-cascade.json")
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.photos is None and not arguments.write_docs:
        parser.error("name the folder of the photographs")
    publish(
        arguments,
        lambda a: measure(
            Workplace(a.work, a.runs, a.photos), a.precisions, a.seed, a.seconds, a.rounds
        ),
        section,
        "guide/you-have-a-model.md",
        "grocery-cascade",
    )


if __name__ == "__main__":
    main()
