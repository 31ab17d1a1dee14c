"""The result as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.gears.runs import MODES
from benchmarks.harness.docs import table
from offramp.figures import BLUE, GREY, ORANGE, PALE, save_png

COLOURS = dict(zip(MODES, (BLUE, ORANGE, GREY), strict=True))
ROWS = (("refused", "refused, %", 100.0), ("p99", "p99, ms", 1.0), ("accuracy", "right, %", 1.0))
NONE = "none"


def section(result: dict[str, Any]) -> str:
    """The section of the guide: the picture, the runs, and the simulation beside them."""
    runs = [
        [
            f"{run['scenario']}, {run['factor']:g} x",
            run["mode"],
            _percent(run["high"]["refused"]),
            _number(run["high"]["p99"], ".0f"),
            _number(run["high"]["accuracy"], ".1f"),
            _number(run["usual"]["p99"], ".0f"),
            _number(run["usual"]["accuracy"], ".1f"),
        ]
        for run in result["runs"]
    ]
    checks = [
        [f"full depth, {row['load']:g} x", *_pairs(row["measured"], row["simulated"])]
        for row in result["constant"]
    ]
    checks += [
        [
            f"gears, {run['scenario']}, {run['factor']:g} x",
            *_pairs(run["high"], run["simulated"]),
        ]
        for run in result["runs"]
        if run["mode"] == "gears"
    ]
    head = ("load", "server", "refused", "p99, ms", "right, %", "p99 before and after, ms")
    parts = [
        "![Refused share, p99 and accuracy over time under a step and a spike of load](../images/gears.png)",
        table((*head, "right before and after, %"), runs),
        "Measured, and simulated with the same arrivals:",
        table(("load", "p50, ms", "p99, ms", "refused"), checks),
        f"{result['machine']}, server and load on a core each; full depth answers "
        f"{result['capacity']:.0f} images a second; target {result['target_ms']:g} ms, floor "
        f"{result['floor']:.1f} %, max_queue_ms {result['max_queue_ms']:g}; images: {result['images']}; "
        "`python -m benchmarks.gears`.",
    ]
    return "\n\n".join(parts) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Refused share, p99 and accuracy over time: a column for each load, a line for each server."""
    loads = list(dict.fromkeys((run["scenario"], run["factor"]) for run in result["runs"]))
    figure = Figure(figsize=(3.2 * len(loads), 6.4), layout="constrained")
    axes = figure.subplots(len(ROWS), len(loads), sharex="col", sharey="row", squeeze=False)
    for column, load in enumerate(loads):
        for row, (key, words, scale) in enumerate(ROWS):
            panel = axes[row][column]
            for run in result["runs"]:
                if (run["scenario"], run["factor"]) != load:
                    continue
                panel.axvspan(*run["loaded"], color=PALE, lw=0)
                values = [
                    float("nan") if value is None else scale * value
                    for value in run["over_time"][key]
                ]
                panel.plot(run["over_time"]["second"], values, color=COLOURS[run["mode"]], lw=1.4)
            if key == "p99":
                panel.set_yscale("log")
                panel.axhline(result["target_ms"], color="black", lw=0.8, ls=":")
            if key == "accuracy":
                panel.axhline(result["floor"], color="black", lw=0.8, ls=":")
            if column == 0:
                panel.set_ylabel(words)
        axes[0][column].set_title(f"{load[0]}, {load[1]:g} x capacity", fontsize=10)
        axes[-1][column].set_xlabel("seconds")
    lines = [axes[0][0].plot([], [], color=COLOURS[mode], label=mode)[0] for mode in MODES]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(MODES), frameon=False)
    save_png(figure, path, "A latency target under a step and a spike", result["machine"])


def _pairs(measured: dict[str, Any], simulated: dict[str, Any]) -> list[str]:
    return [
        f"{_number(measured.get('p50'), '.1f')}, {_number(simulated['p50'], '.1f')}",
        f"{_number(measured['p99'], '.0f')}, {_number(simulated['p99'], '.0f')}",
        f"{_percent(measured['refused'])}, {_percent(simulated['refused'])}",
    ]


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def over_time(rows: Sequence[dict[str, Any]], bin_s: float) -> dict[str, list[Any]]:
    """The figures of consecutive bins as lists, each at the middle of its bin."""
    return {
        "second": [round((number + 0.5) * bin_s, 3) for number in range(len(rows))],
        **{key: [row[key] for row in rows] for key, _, _ in ROWS},
    }
