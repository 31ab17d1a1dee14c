"""The result as Markdown and as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.bundles import note_on
from benchmarks.harness.docs import table
from offramp.figures import BLUE, GREY, ORANGE, PALE, RED, save_png

BIN_S = 0.5
KINDS = {"stable": BLUE, "canary": ORANGE, "not_answered": RED}
HEAD = (
    *("canary", "ended by", "after, s", "its requests", "of them failed inside"),
    *("requests in all", "not answered", "p99 before, during, after, ms"),
)


def section(result: dict[str, Any]) -> str:
    """The section of the guide: the picture and the runs."""
    rows = []
    for run in result["runs"]:
        side = run["report"]["canary"]
        rows.append(
            [
                run["canary"],
                run["outcome"],
                f"{run['ended'] - run['started']:.1f}",
                side["requests"],
                side["errors"],
                run["requests"],
                run["not_answered"],
                ", ".join("none" if value is None else f"{value:.0f}" for value in run["p99"]),
            ]
        )
    parts = [
        "![Answers a second by version, and p99, while a canary runs](../images/canary.png)",
        table(HEAD, rows),
        f"{result['machine']}, server with one worker and load on a core each; "
        f"{result['rate']:g} requests a second, share {result['share']:g}, every request of the canary "
        f"mirrored, min_agreement {result['min_agreement']:g}; {result['bundle']}; "
        f"images: {result['images']}; `python -m benchmarks.canary`.{note_on([result['bundle']])}",
    ]
    return "\n\n".join(parts) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Answers a second by version, and the p99: a column for each canary, which runs where it is grey."""
    runs = result["runs"]
    figure = Figure(figsize=(3.2 * len(runs), 4.6), layout="constrained")
    axes = figure.subplots(2, len(runs), sharex="col", sharey="row", squeeze=False)
    for column, run in enumerate(runs):
        counts, slow, found = axes[0][column], axes[1][column], run["over_time"]
        for panel in (counts, slow):
            panel.axvspan(run["started"], run["ended"], color=PALE, lw=0)
        for key, colour in KINDS.items():
            counts.plot(found["second"], found[key], color=colour, lw=1.4)
        p99s = [float("nan") if value is None else value for value in found["p99"]]
        slow.plot(found["second"], p99s, color=GREY, lw=1.4)
        slow.set_yscale("log")
        for formatter in (slow.yaxis.set_major_formatter, slow.yaxis.set_minor_formatter):
            formatter("{x:g}")
        slow.set_xlabel("seconds")
        counts.set_title(f"{run['canary']}: {run['outcome']}", fontsize=10)
    axes[0][0].set_ylabel("requests a second")
    axes[1][0].set_ylabel("p99, ms")
    lines = [
        axes[0][0].plot([], [], color=colour, label=key.replace("_", " "))[0]
        for key, colour in KINDS.items()
    ]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)
    save_png(figure, path, "Canaries under load", result["machine"])


def figures(
    report: dict[str, Any], by_canary: Sequence[bool], times: tuple[float, float, float]
) -> dict[str, Any]:
    """What became of the requests of `report`, over time and in all; `times` are when the canary began and
    ended, and the seconds of the run."""
    began, ended, seconds = times
    due, latency = np.asarray(report["due"]), np.asarray(report["latency"])
    answered = np.asarray(report["status"]) == 200
    canary = np.asarray(by_canary) & answered
    edges = np.arange(0, seconds + BIN_S / 2, BIN_S)

    def p99(inside: np.ndarray) -> float | None:
        values = latency[inside & answered]
        return round(float(np.percentile(values, 99)), 1) if len(values) else None

    return {
        "requests": len(due),
        "not_answered": int((~answered).sum()),
        "p99": [p99(due < began), p99((due >= began) & (due < ended)), p99(due >= ended)],
        "over_time": {
            "second": ((edges[:-1] + edges[1:]) / 2).tolist(),
            "stable": (np.histogram(due[answered & ~canary], edges)[0] / BIN_S).tolist(),
            "canary": (np.histogram(due[canary], edges)[0] / BIN_S).tolist(),
            "not_answered": (np.histogram(due[~answered], edges)[0] / BIN_S).tolist(),
            "p99": [p99((due >= low) & (due < high)) for low, high in itertools.pairwise(edges)],
        },
    }
