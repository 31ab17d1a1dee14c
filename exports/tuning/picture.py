"""`offramp tune --picture`: accuracy against cost, with the chosen policy."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from exports.tuning.goal import INTERVAL_CONFIDENCE
from exports.tuning.run import Row, Tuning
from offramp.figures import BLUE, GREY, INK, ORANGE, RED, save_png


def picture_tradeoff(tuning: Tuning, output: Path) -> None:
    """Draw `tuning` as the PNG `output`."""
    source = f"{tuning.manifest.name} {tuning.manifest.version}, {tuning.source_sha256[:12]}"
    save_png(draw_tradeoff(tuning), output, "Accuracy against cost", source)


def draw_tradeoff(tuning: Tuning) -> Figure:
    """The frontier with an error band, the exits alone, the ensemble and the chosen policy, on the samples
    that the tuning measured."""
    unit = tuning.goal.unit
    scale = 1.0 if unit == "ms" else 1e-6
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()

    def position(row: Row) -> tuple[float, float]:
        return scale * tuning.mean_cost(row, unit), 100 * row.stats.accuracy

    def limits(row: Row) -> tuple[float, float]:
        low, high = row.drop_interval
        ensemble = row.stats.ensemble_accuracy
        return 100 * (ensemble - high), 100 * (ensemble - low)

    axes.plot(
        *zip(*map(position, tuning.frontier), strict=True),
        ".-",
        color=BLUE,
        markersize=4,
        linewidth=0.8,
        label="chosen for a mean cost, and measured on other samples",
    )
    lower, upper = zip(*map(limits, tuning.frontier), strict=True)
    axes.fill_between(
        [position(row)[0] for row in tuning.frontier],
        lower,
        upper,
        color=BLUE,
        alpha=0.15,
        linewidth=0,
        label=f"{100 * INTERVAL_CONFIDENCE:g} % interval of the drop",
    )
    exits = zip(*map(position, tuning.single_exits), strict=True)
    axes.plot(*exits, "s--", color=GREY, label="one exit alone")
    axes.plot(*position(tuning.ensemble), "D", color=INK, label="ensemble of all exits")
    axes.plot(*position(tuning.previous), "o", color=ORANGE, markersize=8, label="in force before")
    axes.plot(*position(tuning.chosen), "*", color=RED, markersize=15, label="chosen")
    measured = "agreement with the ensemble" if tuning.data.target == "agreement" else "accuracy"
    cost = "mean ms a sample" if unit == "ms" else "mean MACs a sample, M"
    axes.set(xlabel=cost, ylabel=f"{measured} on {tuning.chosen.stats.samples:,} samples, %")
    axes.set_title(f"{tuning.manifest.name}: {tuning.goal.phrase}", size=10, parse_math=False)
    axes.legend(frameon=False, loc="lower right")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
