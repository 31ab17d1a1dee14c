"""The pictures of the analysis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from benchmarks.method.compare import Row, budgets_met
from benchmarks.method.measure import BUDGETS
from offramp.figures import INK, save_png


def draw(rows: Sequence[Row], path: Path) -> None:
    """Left the accuracy of every exit and ensemble, right the accuracy at equal mean cost."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    exits = max(row.exits for row in rows)
    several = [row for row in rows if row.exits == exits]
    places = range(exits + 2)
    for row in several:
        means = [fmean(row.accuracies(k)) for k in places]
        (line,) = left.plot(places, means, "o-", label=row.title, linewidth=1)
        for seed in range(len(row.runs)):
            values = [row.accuracies(k)[seed] for k in places]
            left.plot(places, values, ".", color=line.get_color(), alpha=0.4)
        met = budgets_met([row])
        right.plot(
            [BUDGETS[k] for k in met],
            [fmean(row.early(k)) for k in met],
            "o-",
            color=line.get_color(),
            linewidth=1,
        )
    for row in rows:
        if row.exits == 1 != exits:
            left.axhline(fmean(row.accuracies(0)), linestyle=":", linewidth=1, color=INK)
            left.annotate(row.title, (0, fmean(row.accuracies(0))), fontsize=7, va="bottom")
    names = [*(f"exit {k}" for k in range(1, exits + 1)), "ensemble", "fitted"]
    left.set_xticks(list(places), names)
    left.set(ylabel="accuracy, test, %")
    left.legend(frameon=False, fontsize=7, labelcolor=INK)
    right.set(xlabel="mean cost under early exit / full depth", ylabel="accuracy, test, %")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, "Methods compared at every exit", "benchmarks/method.json")
