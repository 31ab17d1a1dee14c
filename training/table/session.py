"""One call of `offramp table`: what it knows, trains, shows and leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console

from training.recipes.table_definition import Table, load_table
from training.recipes.table_recipes import Cell, Variant, cell_recipe
from training.table import measure, render
from training.table.picture import draw
from training.table.results import Results, read_results
from training.table.rows import choose
from training.table.train import plan, train_runs


@dataclass(frozen=True)
class Session:
    """A table under one protocol, the cells that were chosen and the results there are."""

    table: Table
    cells: list[Cell]
    variant: Variant
    runs: Path
    out: Path
    results: Results

    @classmethod
    def open(cls, name: str, patterns: str, variant: Variant, runs: Path, out: Path) -> Self:
        """Raises RecipeError for an unknown table or row or an impossible width, CheckpointError for
        results that cannot be read."""
        table = load_table(name)
        cells = choose(table, patterns)
        variant = variant.changes_to(table)
        for cell in cells:
            cell_recipe(table, cell, variant, 0)
        file = results_file(out, name, variant.name)
        return cls(table, cells, variant, runs, out, read_results(file, runs, name, variant.name))

    def train(
        self,
        seeds: Sequence[int],
        *,
        data_root: Path,
        device: str,
        download: bool,
        say: Callable[[str], None],
    ) -> dict[str, str]:
        """Train what the chosen cells lack. Returns why runs failed, by name."""
        recipes = plan(self.table, self.cells, seeds, self.variant, self.results)
        say(f"{len(recipes)} runs for {len(self.cells)} rows")
        return train_runs(
            recipes,
            self.results,
            runs=self.runs,
            data_root=data_root,
            device=device,
            download=download,
            say=say,
            after_each=self._write_json,
        )

    def filled(self) -> measure.Filled:
        """The whole table, whatever was chosen."""
        return self._fill(choose(self.table, "*"))

    def write(self) -> None:
        """Write the JSON file and the picture, of the whole table whatever was chosen."""
        self._write_json()
        draw(self.filled(), self._file.with_suffix(".png"))

    def into_document(self, path: Path) -> None:
        """Write the whole table into a Markdown file."""
        render.into_document(path, self.filled())

    def show(self) -> None:
        """Print the chosen cells."""
        console = Console()
        for part in render.terminal(self._fill(self.cells)):
            console.print(part, highlight=False, markup=False)

    @property
    def _file(self) -> Path:
        return results_file(self.out, self.table.name, self.variant.name)

    def _write_json(self) -> None:
        measure.write(self.filled(), self._file)

    def _fill(self, cells: Sequence[Cell]) -> measure.Filled:
        return measure.fill(self.table, cells, self.variant, self.results)


def results_file(out: Path, table: str, changed: str) -> Path:
    """Where the results of a table under one protocol are kept, as in out/table-cifar100.json."""
    return out / f"table-{'-'.join(part for part in (table, changed) if part)}.json"
