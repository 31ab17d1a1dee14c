"""Tables of the digits, with runs that are written or trained quickly."""

from __future__ import annotations

from pathlib import Path

from training.checkpoint import CheckpointConfig, ExitAccuracies, save_checkpoint
from training.recipes.schema import Recipe
from training.recipes.table_recipes import Variant
from training.table.filled_table import CellResult, FilledTable
from training.table.table_run import TableRun

SHORT = Variant(epochs=2, width=4)


def write_finished_run(
    runs: Path, recipe: Recipe, exits: tuple[float, ...], ensemble: float
) -> None:
    """Write the checkpoint of a finished run with these accuracies."""
    accuracies = ExitAccuracies(exits=exits, ensemble=ensemble)
    config = CheckpointConfig(
        recipe=recipe,
        classes=tuple("0123456789"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image_size=(16, 16),
        teacher_test=None,
        held_out=accuracies,
        test=accuracies,
        seconds=1.0,
        tools={},
    )
    directory = runs / recipe.name
    directory.mkdir(parents=True)
    save_checkpoint(directory, config.build(), config)


def open_table(place: Path, rows: str = "*", variant: Variant | None = None) -> TableRun:
    return TableRun.open("digits", rows, variant or Variant(), place / "runs", place / "out")


def cell_result(place: Path, row: str, variant: Variant | None = None) -> CellResult:
    """The cell of `row` as written to the JSON file."""
    table_run = open_table(place, f"*/{row}", variant)
    table_run.write()
    cells = FilledTable.model_validate_json(
        next(iter((place / "out").glob("*.json"))).read_text()
    ).cells
    return next(cell for cell in cells if cell.row == row)


def train_rows(place: Path, rows: str) -> dict[str, str]:
    """Train the rows that match for two epochs; returns the failed runs and why."""
    table_run = open_table(place, rows, SHORT)
    return table_run.train([0], data_root=place, device="cpu", download=False, say=lambda _: None)
