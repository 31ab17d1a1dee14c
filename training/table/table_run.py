"""One call of `offramp table`: trains, shows and writes a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console

from training.recipes.table_definition import Table, load_table
from training.recipes.table_recipes import Cell, Variant, cell_recipe
from training.table import markdown, render
from training.table.filled_table import FilledTable, fill, write_json
from training.table.picture import draw
from training.table.results import Results, read_results
from training.table.selection import select_cells
from training.table.train import plan, train_runs


@dataclass(frozen=True)
class TableRun:
    """A table under one protocol, the selected cells and the results so far."""

    table: Table
    cells: list[Cell]
    variant: Variant
    runs: Path
    out: Path
    results: Results

    @classmethod
    def open(cls, name: str, patterns: str, variant: Variant, runs: Path, out: Path) -> Self:
        """Select the cells that match `patterns` and read their results.

        Raises RecipeError for an unknown table or row or an impossible width, CheckpointError for
        results that cannot be read.
        """
        table = load_table(name)
        cells = select_cells(table, patterns)
        variant = variant.changes_to(table)
        for cell in cells:
            cell_recipe(table, cell, variant, 0)  # raises if the width is impossible
        files = _files_with_results(out, name, variant)
        return cls(table, cells, variant, runs, out, read_results(files, runs, name, variant))

    def train(
        self,
        seeds: Sequence[int],
        *,
        data_root: Path,
        device: str,
        download: bool,
        say: Callable[[str], None],
    ) -> dict[str, str]:
        """Train the missing runs of the selected cells. Returns the failed runs and why, by name."""
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

    def filled(self) -> FilledTable:
        """The whole table, not only the selected cells."""
        return self._fill(select_cells(self.table, "*"))

    def write(self) -> None:
        """Write the JSON file and the picture of the whole table."""
        self._write_json()
        draw(self.filled(), self._file.with_suffix(".png"))

    def write_into_document(self, path: Path) -> None:
        """Write the whole table into a Markdown file."""
        markdown.write_into_document(path, self.filled())

    def show(self) -> None:
        """Print the selected cells."""
        console = Console()
        for part in render.terminal(self._fill(self.cells)):
            console.print(part, highlight=False, markup=False)

    @property
    def _file(self) -> Path:
        return results_file(self.out, self.table.name, self.variant.name)

    def _write_json(self) -> None:
        write_json(self.filled(), self._file)

    def _fill(self, cells: Sequence[Cell]) -> FilledTable:
        return fill(self.table, cells, self.variant, self.results)


def _files_with_results(out: Path, table: str, variant: Variant) -> list[Path]:
    """The files that may hold results under `variant`, its own last: rows without a teacher are the same
    whatever the teachers, and rows that need more than its logits are the same with views and without."""
    own = results_file(out, table, variant.name)
    plain = results_file(out, table, variant.untaught.name)
    others = [plain]
    for part in ("teacher", "views"):
        others += sorted(out.glob(f"{plain.stem}-{part}*.json"))
    return [
        file for file in dict.fromkeys([*(o for o in others if o != own), own]) if file.is_file()
    ]


def results_file(out: Path, table: str, variant: str) -> Path:
    """The file of a table's results under one protocol, as in out/table-cifar100.json."""
    return out / f"table-{'-'.join(part for part in (table, variant) if part)}.json"
