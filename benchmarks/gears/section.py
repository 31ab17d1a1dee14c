"""The result as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.gears.check import CORE_SHARE
from benchmarks.gears.runs import MODES
from benchmarks.harness.docs import table
from offramp.figures import BLUE, GREY, ORANGE, PALE, save_png

COLOURS = dict(zip(MODES, (BLUE, ORANGE, GREY), strict=True))
ROWS = (("refused", "refused, %", 100.0), ("p99", "p99, ms", 1.0), ("accuracy", "right, %", 1.0))
COMPARED = ("p50, ms", "p99, ms", "refused", "CPU an answer, ms", "core left to the server")
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
    head = ("load", "server", "refused", "p99, ms", "right, %", "p99 before and after, ms")
    parts = [
        "![Refused share, p99 and accuracy over time under a step and a spike of load](../images/gears.png)",
        table((*head, "right before and after, %"), runs),
        *_verdicts(result["runs"]),
        "Measured, and simulated with the same arrivals:",
        table(("load", *COMPARED), _checks(result)),
        *_conditions(result),
    ]
    return "\n\n".join(parts) + "\n"


def _checks(result: dict[str, Any]) -> list[list[str]]:
    """The rows of the simulation beside what was measured."""
    rows = [
        (f"full depth, {row['load']:g} x", row["core_share"], row["measured"], row["simulated"])
        for row in result["constant"]
    ]
    for run in result["runs"]:
        if run["mode"] == "gears":
            name = f"gears, {run['scenario']}, {run['factor']:g} x"
            measured = {**run["high"], "cpu_ms": run["cpu_ms"]}
            rows.append((name, run["core_share"], measured, run["simulated"]))
    return [
        [name, *_pairs(measured, simulated), f"{core_share:.0%}"]
        for name, core_share, measured, simulated in rows
    ]


def _conditions(result: dict[str, Any]) -> list[str]:
    """What the simulation was given, and where and how all this was measured."""
    host, accuracies = result["host"], [gear["accuracy"] for gear in result["gears"]]
    decode, around, refusal = (1e3 * host[f"{name}_s"] for name in ("decode", "request", "refuse"))
    found = [
        f"Measured for the simulation before these runs: {decode:.2f} ms of CPU to decode an image, "
        f"{around:.2f} ms a request for all but the worker, {refusal:.3f} ms for a refusal. Stages take "
        f"{host['stage_factor']:.2f} times what the server's table says.",
        f"`{result['bundle']}`, {len(accuracies)} gears, from {accuracies[0]:.1f} to {accuracies[-1]:.1f} % "
        f"on the table; {result['machine']}, server and load on a core each; full depth answers "
        f"{result['capacity']:.0f} images a second; target {result['target_ms']:g} ms, floor "
        f"{result['floor']:.1f} %, max_queue_ms {result['max_queue_ms']:g}; images: {result['images']}; "
        "`python -m benchmarks.gears`.",
    ]
    disturbed = sum(run["core_share"] < CORE_SHARE for run in result["runs"])
    if disturbed:
        found.append(
            f"**In {disturbed} of {len(result['runs'])} runs other processes took more than "
            f"{1 - CORE_SHARE:.0%} of the server's core. Their latencies and refusals say little.**"
        )
    return found


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


def _verdicts(runs: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for every load: what gears refused, beside the others."""
    found = []
    for load in dict.fromkeys((run["scenario"], run["factor"]) for run in runs):
        refused = {
            run["mode"]: run["high"]["refused"]
            for run in runs
            if (run["scenario"], run["factor"]) == load
        }
        if len(refused) < len(MODES) or None in refused.values():
            continue
        gears, *others = (refused[mode] for mode in MODES)
        compared = " and ".join(
            f"{_points(gears - other)} than {name}"
            for name, other in zip(("the fixed policy", "shedding alone"), others, strict=True)
        )
        found.append(f"- {load[0]}, {load[1]:g} x: gears refused {compared}.")
    return ["\n".join(found)] if found else []


def _points(difference: float) -> str:
    return f"{100 * abs(difference):.1f} points {'less' if difference <= 0 else 'more'}"


def _pairs(measured: dict[str, Any], simulated: dict[str, Any]) -> list[str]:
    return [
        f"{_number(measured.get('p50'), '.1f')}, {_number(simulated['p50'], '.1f')}",
        f"{_number(measured['p99'], '.0f')}, {_number(simulated['p99'], '.0f')}",
        f"{_percent(measured['refused'])}, {_percent(simulated['refused'])}",
        f"{_number(measured['cpu_ms'], '.2f')}, {_number(simulated['cpu_ms'], '.2f')}",
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
