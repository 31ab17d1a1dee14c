"""`offramp picture calibration`: reliability diagrams of every exit."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from exports.bundle.policy import softmax
from exports.pictures.table import BundleTable
from exports.tuning.reliability import BINS, Reliability, reliability
from offramp.figures import BLUE, GREY, INK, RED

MAX_DOT_AREA = 140  # points squared


def draw_calibration(data: BundleTable) -> Figure:
    """A column per exit and one for the ensemble; the upper row as trained, the lower row with the
    fitted temperature."""
    scaling = data.manifest.scaling
    columns = [
        *(
            (f"exit {k}", logits, temperature)
            for k, (logits, temperature) in enumerate(
                zip(data.table.logits, scaling.temperatures, strict=True), 1
            )
        ),
        ("ensemble", data.running(data.exits), scaling.running_temperatures[-1]),
    ]
    figure = Figure(figsize=(2.2 * len(columns) + 0.4, 5.6), layout="constrained")
    grid = figure.subplots(2, len(columns), sharex=True, sharey=True, squeeze=False)
    for column, (name, logits, temperature) in enumerate(columns):
        correct = data.correct(logits)
        for row, t in enumerate((1.0, temperature)):
            confidence = softmax(logits / np.float32(t)).max(axis=-1)
            bins = reliability(confidence, correct)
            _draw_reliability(grid[row, column], bins)
            error = f"ECE {100 * bins.expected_calibration_error:.1f} %"
            grid[row, column].set_title(
                f"{name}: {error}" if row == 0 else f"T = {t:.2f}: {error}", size=10
            )
    grid[0, 0].set_ylabel("as trained (T = 1)\naccuracy")
    grid[1, 0].set_ylabel("temperature-scaled\naccuracy")
    for axes in grid[1]:
        axes.set_xlabel("confidence")
    figure.suptitle(
        f"Confidence against accuracy, {data.manifest.name}", size=12, color=INK, parse_math=False
    )
    note = (
        f"{data.split.capitalize()}; {BINS} bins of equal width, the area of a dot is its share of "
        "samples; blue: underconfident, red: overconfident. The temperatures were fitted on these "
        "samples, so the lower row is optimistic."
    )
    columns_of_text = int(13 * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(note, columns_of_text), size=9, color=INK)
    return figure


def _draw_reliability(axes: Any, bins: Reliability) -> None:
    underconfident = bins.accuracy >= bins.confidence
    colours = np.where(underconfident, BLUE, RED)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    axes.vlines(bins.confidence, bins.confidence, bins.accuracy, color=colours, linewidth=1.5)
    areas = 6 + MAX_DOT_AREA * bins.share
    axes.scatter(
        bins.confidence, bins.accuracy, areas, color=colours, linewidth=0, zorder=3, clip_on=False
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
