"""The cells and seeds that a command line selects."""

from __future__ import annotations

from fnmatch import fnmatchcase

from training.errors import RecipeError
from training.recipes.table_definition import Table
from training.recipes.table_recipes import Cell


def select_cells(table: Table, patterns: str) -> list[Cell]:
    """The listed cells PAIR/ROW that match any of the comma-separated `patterns`, in the table's order.

    A pattern is as in a shell; one without a slash selects all rows of a pair. Raises RecipeError for
    one that matches nothing.
    """
    cells = [Cell(pair, row) for pair in table.pairs for row in table.listed]
    selected: set[str] = set()
    for pattern in patterns.split(","):
        full = pattern.strip() if "/" in pattern else f"{pattern.strip()}/*"
        matching = {cell.name for cell in cells if fnmatchcase(cell.name, full)}
        if not matching:
            raise RecipeError(
                f"no row of {table.name} matches {pattern.strip()!r}; rows are PAIR/METHOD with "
                f"PAIR one of {', '.join(pair.name for pair in table.pairs)} and "
                f"METHOD one of {', '.join(row.key for row in table.listed)}."
            )
        selected |= matching
    return [cell for cell in cells if cell.name in selected]


def parse_seeds(text: str) -> list[int]:
    """The seeds in a list as in "0,1,2", each once. Raises RecipeError for any other text."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise RecipeError(f"--seeds takes whole numbers as in 0,1,2, not {text!r}.")
    return list(dict.fromkeys(int(part) for part in parts))
