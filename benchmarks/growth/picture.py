"""A panel for each kind of growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offramp.figures import BLUE, GREY, INK, ORANGE, save_png

COLOURS = {"in process": BLUE, "over HTTP": ORANGE, "full depth": BLUE, "early exit": ORANGE}
MIB = 1 << 20


def draw(result: dict[str, Any], memory: dict[str, Any], path: Path) -> None:
    """Six panels; `memory` is what `benchmarks.promises.memory` wrote."""
    figure = Figure(figsize=(12, 7), layout="constrained")
    (cores, batch, exits), (side, load, models) = figure.subplots(2, 3)
    first = result["cores"]["in process"][0]
    counts = [row["cores"] for row in result["cores"]["in process"]]
    cores.plot(counts, [first["rate"] * n / first["cores"] for n in counts], ":", color=GREY)
    cores.set_xticks(counts)
    _rates(cores, result["cores"], "cores")
    _rates(batch, result["batch"], "batch")
    batch.set_xscale("log", base=2)
    batch.xaxis.set_major_formatter("{x:g}")
    exits.plot(
        [row["exits"] for row in result["exits"]],
        [row["ms"] for row in result["exits"]],
        "o-",
        color=BLUE,
    )
    exits.set(xlabel="exits", ylabel="ms an image, full depth", ylim=(0, None))
    side.plot(
        [row["side"] for row in result["side"]],
        [row["rate"] * row["macs"] / 1e9 for row in result["side"]],
        "o-",
        color=ORANGE,
    )
    side.set(xlabel="side, pixels", ylabel="GMACs a second over HTTP", ylim=(0, None))
    for mode in ("full depth", "early exit"):
        rows = [row for row in result["load"] if row["mode"] == mode]
        for percentile, style in (("p50", ":"), ("p99", "-")):
            load.plot(
                [row["rate"] for row in rows],
                [row[percentile] for row in rows],
                style,
                color=COLOURS[mode],
                label=f"{mode}, {percentile}",
            )
    load.set(xlabel="offered, images a second", ylabel="ms", yscale="log")
    load.yaxis.set_major_formatter("{x:g}")
    for one in memory["models"]:
        models.plot(
            [row["copies"] for row in one["rows"]],
            [row["answered"] / MIB for row in one["rows"]],
            "o-",
            label=f"{one['name']}, {one['file_bytes'] / MIB:.0f} MiB",
        )
    models.set(xlabel="models", ylabel="MiB of the server", ylim=(0, None))
    for panel in (cores, batch, exits, side, load, models):
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=7, labelcolor=INK)
    save_png(figure, path, "How serving grows", result["machine"])


def _rates(panel: Axes, series: dict[str, list[dict[str, Any]]], key: str) -> None:
    for name, rows in series.items():
        panel.plot(
            [row[key] for row in rows],
            [row["rate"] for row in rows],
            "o-",
            color=COLOURS[name],
            label=name,
        )
    panel.set(xlabel=key, ylabel="images a second")
    panel.set_ylim(bottom=0)
