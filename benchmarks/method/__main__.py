"""Analyses the trained rows of a table: every exit, ensembles, early exit at equal cost, paired differences.

    python -m benchmarks.method --runs runs --data data

Measures each finished run of the rows of one pair on the test split, once; writes a JSON file with which
images each run answers correctly, and a picture. `--write-docs` needs no runs and no data: it draws the
picture again from the JSON and puts tables and answers into docs/design/reproduction.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import docs
from benchmarks.method.measure import measure_run
from benchmarks.method.picture import draw
from benchmarks.method.section import rows_of, section
from training.checkpoint import CONFIG
from training.recipes.table_definition import load_table
from training.recipes.table_recipes import Cell, Variant, cell_recipe

HERE = Path(__file__).parents[1]
PICTURE = HERE.parent / "docs" / "images" / "method.png"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, print the section; or draw, and fill in the docs."""
    arguments = _arguments(argv)
    docs.publish(arguments, measure, section, "design/reproduction.md", arguments.json.stem)
    rows = list(rows_of(json.loads(arguments.json.read_text("utf-8"))).values())
    if rows:
        draw(rows, arguments.picture)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The rows with what is measured, in the JSON before or now."""
    table = load_table(arguments.table)
    pair = table.pair(arguments.pair)
    if pair is None:
        raise SystemExit(f"{table.name} has no pair {arguments.pair}")
    earlier: dict[str, Any] = {}
    if arguments.json.exists():
        earlier = json.loads(arguments.json.read_text("utf-8"))["rows"]
    rows: dict[str, Any] = {}
    for row in table.listed:
        known = earlier.get(row.key, {}).get("runs", {})
        found = {
            str(seed): _measured(arguments, Cell(pair, row), seed, known.get(str(seed)))
            for seed in range(arguments.seeds)
        }
        runs = {seed: run for seed, run in found.items() if run is not None}
        rows[row.key] = {"title": row.title, "runs": runs}
    variant = Variant(arguments.epochs, arguments.width, arguments.teacher_epochs)
    variant = variant.changes_to(table)
    changed = f" ({variant.name})" if variant.name else ""
    return {"protocol": f"{table.name}, {pair.name}{changed}", "rows": rows}


def _measured(
    arguments: argparse.Namespace, cell: Cell, seed: int, known: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The run of a row and a seed: measured now, or `known` from before; None if there is neither."""
    names = _recipe_names(arguments, cell, seed)
    if known is not None and known["recipe"] not in names:
        known = None  # of another protocol
    trained = (name for name in names if (arguments.runs / name / CONFIG).is_file())
    name = next(trained, None)
    if name is None or (known is not None and known["recipe"] == name):
        return known
    print(f"measuring {name}", flush=True)
    return {"recipe": name, **measure_run(arguments.runs / name, arguments.data)}


def _recipe_names(arguments: argparse.Namespace, cell: Cell, seed: int) -> list[str]:
    """The runs that count for a row and a seed: with cached views first, then without."""
    table = load_table(arguments.table)
    variants = (
        Variant(arguments.epochs, arguments.width, arguments.teacher_epochs, views)
        for views in (arguments.views, None)
    )
    names = (cell_recipe(table, cell, variant, seed).name for variant in variants)
    return list(dict.fromkeys(names))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", default="cifar100")
    parser.add_argument("--pair", default="vgg13-vgg8")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--teacher-epochs", type=int)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path, default=HERE / "method.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
