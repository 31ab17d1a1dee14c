"""The picture of a filled table: published and measured accuracy, row by row."""

from __future__ import annotations

from pathlib import Path

from offramp.files import replacing
from training.table.filled_table import FilledTable
from training.table.render import by_pair, heading


def draw(filled: FilledTable, path: Path) -> None:
    """Draw one panel per pair as the PNG `path`, in one step."""
    from matplotlib.figure import Figure

    pairs = list(by_pair(filled.cells))
    tallest = max(len(cells) for _, cells in pairs)
    figure = Figure(figsize=(4.2 * len(pairs) + 2.0, 0.26 * tallest + 1.6), layout="constrained")
    trained = any(cell.measured for cell in filled.cells)
    figure.suptitle(heading(filled) + ("" if trained else ": none measured yet"))
    panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for panel, (pair, cells) in zip(panels, pairs, strict=True):
        published = [(c.published, y) for y, c in enumerate(cells) if c.published is not None]
        measured = [(c.measured.ensemble, y) for y, c in enumerate(cells) if c.measured]
        panel.plot(*_columns(published), "o", color="tab:gray", fillstyle="none", label="published")
        panel.errorbar(
            [spread.mean for spread, _ in measured],
            [y for _, y in measured],
            xerr=[spread.std or 0.0 for spread, _ in measured],
            fmt="s",
            color="tab:blue",
            markersize=4,
            label="measured, mean ± std",
        )
        titles = [cell.title for cell in cells] if panel is panels[0] else [""] * len(cells)
        panel.set_yticks(range(len(cells)), titles)
        panel.set(title=pair, xlabel="test accuracy, %", ylim=(len(cells) - 0.5, -0.5))
        panel.grid(axis="y", linewidth=0.3)
    panels[0].legend(loc="lower left", fontsize="small")
    with replacing(path) as part:
        figure.savefig(part, dpi=100, format="png")


def _columns(points: list[tuple[float, int]]) -> tuple[list[float], list[int]]:
    return [x for x, _ in points], [y for _, y in points]
