"""Latency against load: Offramp with early exit, and the best layout of each peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from offramp.figures import INK, save_png

OURS = "Offramp, early exit"
# Beyond this share refused or failed, the latency is that of the few that were answered.
MAX_UNANSWERED = 0.05


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel per bundle: the p99 at every offered rate. Points at which a server leaves more than
    MAX_UNANSWERED of the requests without an answer are hollow."""
    rows = result["rows"]
    bundles = list(dict.fromkeys(row["bundle"] for row in rows))
    figure = Figure(figsize=(5.5 * len(bundles), 4.2), layout="constrained")
    panels = figure.subplots(1, len(bundles), squeeze=False)[0]
    for panel, bundle in zip(panels, bundles, strict=True):
        for row in drawn(rows, bundle):
            offered = [one["rate"] for one in row["open"]]
            p99 = [one["p99"] for one in row["open"]]
            ours = row["server"] == OURS
            (line,) = panel.plot(
                offered,
                p99,
                label=row["server"],
                linewidth=2.5 if ours else 1,
                zorder=3 if ours else 2,
            )
            for one in row["open"]:
                hollow = unanswered(one, result["seconds"]) > MAX_UNANSWERED
                panel.plot(
                    *(one["rate"], one["p99"], "o"),
                    color=line.get_color(),
                    markerfacecolor="white" if hollow else line.get_color(),
                    zorder=4,
                )
        panel.set(title=bundle, xlabel="offered, images a second", ylabel="p99, ms", yscale="log")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=7, labelcolor=INK)
    save_png(figure, path, "Latency against load", result["machine"])


def drawn(rows: Sequence[dict[str, Any]], bundle: str) -> list[dict[str, Any]]:
    """Our row with early exit, and of every other product the row with the highest maximum rate."""
    alike = [row for row in rows if row["bundle"] == bundle]
    found = [row for row in alike if row["server"] == OURS]
    for product in dict.fromkeys(row["product"] for row in alike if row["product"] != "Offramp"):
        found.append(
            max((row for row in alike if row["product"] == product), key=lambda row: row["most"])
        )
    return found


def unanswered(one: dict[str, Any], seconds: float) -> float:
    """The share of the requests at one offered rate that were refused or failed."""
    failed: float = one["failed"] / (one["rate"] * seconds)
    return one["refused"] + failed
