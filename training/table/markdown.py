"""A filled table as Markdown, and its place in a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from offramp.files import replacing
from training.errors import RecipeError
from training.table.filled_table import CellResult, FilledTable
from training.table.render import (
    NONE,
    by_pair,
    columns,
    doubts,
    heading,
    last_stage,
    line,
    millions,
    percent,
    teachers,
)

# Columns of a pair that appear elsewhere: the networks have their own table.
NETWORK_COLUMNS = ("parameters", "MACs")
# Columns of a pair that are left out where no row fills them.
OPTIONAL_COLUMNS = ("published", "measured", "seeds", "remarks")


def markdown(filled: FilledTable) -> str:
    """The table as Markdown: the pairs without results in one table, every other pair in its own."""
    pairs = dict(by_pair(filled.cells))
    untrained = {pair: cells for pair, cells in pairs.items() if not _has_results(cells)}
    parts = [f"*{heading(filled)}.*"]
    if untrained:
        parts += _published(untrained)
    for pair, cells in pairs.items():
        if pair not in untrained:
            parts += [f"### {pair}", _measured(cells)]
            parts += [f"{sentence}." for sentence in teachers(cells)]
    parts.append(_networks(pairs))
    parts += [f"- {sentence}." for sentence in doubts(filled.cells)]
    return "\n\n".join(parts).replace(".\n\n- ", ".\n- ") + "\n"


def markers(name: str) -> tuple[str, str]:
    """The lines before and after the table `name` in a document."""
    return f"<!-- table {name} -->", f"<!-- end of table {name} -->"


def write_into_document(path: Path, filled: FilledTable) -> None:
    """Write the table between its markers in the Markdown file `path`.

    Raises RecipeError if the file has no markers.
    """
    name = "/".join(part for part in (filled.table, filled.changed) if part)
    begin, end = markers(name)
    text = path.read_text("utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise RecipeError(f"{path} has no markers for this table: add the lines {begin} and {end}.")
    with replacing(path) as part:
        part.write_text(f"{before}{begin}\n{markdown(filled)}{end}{after}", "utf-8")


def _has_results(cells: Sequence[CellResult]) -> bool:
    """Whether any row or teacher of a pair is trained, was stopped or failed."""
    return any(
        cell.measured or cell.failed or cell.stopped or (cell.teacher and cell.teacher.test)
        for cell in cells
    )


def _published(pairs: dict[str, list[CellResult]]) -> Iterator[str]:
    """The published figures of pairs without results; rows without figures as one sentence.

    Every pair has the same rows.
    """
    rows: list[list[str]] = []
    unpublished: list[str] = []
    cells_of_row: dict[str, list[CellResult]] = {}
    for cell in chain.from_iterable(pairs.values()):
        cells_of_row.setdefault(cell.row, []).append(cell)
    for row, cells in cells_of_row.items():
        if all(cell.published is None for cell in cells):
            unpublished.append(f"`{row}`")
            continue
        rows.append(
            [
                f"{cells[0].title} ({row})",
                *(percent(cell.published, bool(cell.doubts)) for cell in cells),
            ]
        )
        for k in range(max(len(cell.published_exits) for cell in cells)):
            exits = [cell.published_exits[k : k + 1] for cell in cells]
            rows.append([f"{row}, exit {k + 1}", *(percent(*(one or (None,))) for one in exits)])
    if rows:
        yield "Published test accuracy, %. No row and no teacher of these pairs is trained."
        yield _table(["method", *pairs], rows)
    if unpublished:
        yield f"Neither published nor trained: {', '.join(unpublished)}."


def _measured(cells: Sequence[CellResult]) -> str:
    """One pair, without the networks' columns and without optional columns that are empty."""
    names, rows = columns(cells), [line(cell, last_stage(cells)) for cell in cells]
    kept = [
        k
        for k, name in enumerate(names)
        if name not in NETWORK_COLUMNS
        and not (name in OPTIONAL_COLUMNS and {row[k] for row in rows} <= {NONE, ""})
    ]
    return _table([names[k] for k in kept], [[row[k] for k in kept] for row in rows])


def _networks(pairs: dict[str, list[CellResult]]) -> str:
    """Parameters and MACs of every student, with a single exit and with all."""
    rows: dict[str, list[str]] = {}
    for pair, cells in pairs.items():
        teacher = next((cell.teacher.run.split("/")[1] for cell in cells if cell.teacher), "")
        costs = {len(cell.exits) > 1: (cell.parameters, cell.macs) for cell in cells}
        rows[pair.removeprefix(f"{teacher}-")] = [
            millions(cost) if cost is not None else NONE
            for several in (False, True)
            for cost in costs.get(several, (None, None))
        ]
    names = [f"{what}, {exits}" for exits in ("one exit", "all exits") for what in NETWORK_COLUMNS]
    return _table(["student", *names], [[student, *row] for student, row in rows.items()])


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)
