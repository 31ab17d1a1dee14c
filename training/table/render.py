"""A filled table in the terminal, and the texts that it shares with the Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.table import Table as RichTable

from training.table.filled_table import CellResult, FilledTable, Spread

NONE = "-"


def spread(figures: Spread | None) -> str:
    """As in `76.27 ± 0.21`, `76.27` for one run, or a dash for none."""
    if figures is None:
        return NONE
    return f"{figures.mean:.2f}" + ("" if figures.std is None else f" ± {figures.std:.2f}")


def percent(published: float | None, doubted: bool = False) -> str:
    """A published figure, with a question mark if it is doubted."""
    return NONE if published is None else f"{published:.2f}" + (" ?" if doubted else "")


def millions(count: int) -> str:
    """As in `3.97 M`, `556 M`."""
    return f"{count / 1e6:.2f} M" if count < 100_000_000 else f"{count / 1e6:.0f} M"


def by_pair(cells: Iterable[CellResult]) -> Iterator[tuple[str, list[CellResult]]]:
    """The cells of each pair."""
    for pair, figures in groupby(cells, key=lambda cell: cell.pair):
        yield pair, list(figures)


def heading(filled: FilledTable) -> str:
    """The table's name and protocol."""
    changed = (
        f", CHANGED PROTOCOL {filled.changed}: not to be compared with the published figures"
        if filled.changed
        else ""
    )
    return f"{filled.table}, {filled.epochs} epochs{changed}"


def columns(cells: Sequence[CellResult]) -> list[str]:
    """The headings of a pair's columns."""
    exits = [f"exit {k}" for k in range(1, last_stage(cells) + 1)]
    return ["method", "published", "measured", "seeds", *exits, "parameters", "MACs", "remarks"]


def line(cell: CellResult, stages: int) -> list[str]:
    """The columns of one cell. Exits show the measured and, in brackets, the published accuracy."""
    measured = dict(zip(cell.exits, cell.measured.exits, strict=True)) if cell.measured else {}
    published = dict(zip(cell.exits, cell.published_exits, strict=False))
    return [
        f"{cell.title} ({cell.row})",
        percent(cell.published, bool(cell.doubts)),
        spread(cell.measured.ensemble if cell.measured else None),
        str(len(cell.measured.seeds)) if cell.measured else NONE,
        *(_exit(measured.get(k), published.get(k)) for k in range(1, stages + 1)),
        millions(cell.parameters),
        millions(cell.macs),
        "; ".join(_remarks(cell)),
    ]


def terminal(filled: FilledTable) -> Iterator[RichTable | str]:
    """The parts to print: one rich table for every pair, and the remarks."""
    yield heading(filled)
    for pair, cells in by_pair(filled.cells):
        stages = last_stage(cells)
        table = RichTable(title=f"{pair}: test accuracy, %", title_justify="left")
        for k, name in enumerate(columns(cells)):
            table.add_column(name, justify="left" if k in (0, stages + 6) else "right")
        for cell in cells:
            table.add_row(*line(cell, stages))
        yield table
        yield from teachers(cells)
    yield from doubts(filled.cells)


def last_stage(cells: Sequence[CellResult]) -> int:
    """The last stage of the student."""
    return max(cell.exits[-1] for cell in cells)


def teachers(cells: Sequence[CellResult]) -> Iterator[str]:
    """A line for every teacher of the cells, with its accuracy."""
    for teacher in {cell.teacher.run: cell.teacher for cell in cells if cell.teacher}.values():
        if teacher.test is None:
            yield f"teacher {teacher.run}: not trained"
        else:
            exits = ", ".join(f"{value:.2f}" for value in teacher.test.exits)
            yield f"teacher {teacher.run}: exits {exits}, ensemble {teacher.test.ensemble:.2f}"


def doubts(cells: Iterable[CellResult]) -> Iterator[str]:
    """A line for every reason to doubt published figures, with their cells."""
    by_reason: dict[str, list[str]] = {}
    for cell in cells:
        for why in cell.doubts:
            by_reason.setdefault(why, []).append(f"{cell.pair}/{cell.row}")
    for why, names in by_reason.items():
        yield f"? {', '.join(names)}: {why}"


def _exit(measured: Spread | None, published: float | None) -> str:
    return spread(measured) + ("" if published is None else f" ({published:.2f})")


def _remarks(cell: CellResult) -> Iterator[str]:
    for seed, why in cell.failed.items():
        yield f"seed {seed} failed: {why.rstrip('.')}"
    for seed, epochs in cell.stopped.items():
        if seed not in cell.failed:
            yield f"seed {seed} stopped after epoch {epochs}"
