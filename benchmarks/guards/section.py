"""The result as Markdown and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.bundles import note_on
from benchmarks.harness.docs import table
from benchmarks.promises.drift import CORRUPTED
from offramp.figures import BLUE, GREY, ORANGE, save_png


def section(result: dict[str, Any]) -> str:
    """The section of the guide: the picture, a table of all kinds, and the server beside the simulation."""
    clean, *changed = result["rows"]
    severities = dict.fromkeys(row["severity"] for row in changed)
    head = ("images", "", *(f"severity {severity}" for severity in severities))
    lines = []
    for kind in dict.fromkeys(row["images"] for row in changed):
        found = [row for row in changed if row["images"] == kind]
        lines += [
            [kind, "drop, points", *(f"{row['drop']:.2f}" for row in found)],
            ["", "agreement of exits, %", *(_agreement(row, result) for row in found)],
            ["", "drift alarm after", *(_median(row["drift"]) for row in found)],
            ["", "first raise after", *(_median(row["raised"]) for row in found)],
        ]
    held = sum(row["drop"] <= result["permitted_drop"] for row in changed)
    raised = sum(found is not None for found in clean["raised"])
    server = result["server"]
    promised = ", ".join(f"{100 * value:.1f} %" for value in result["promises"].values())
    parts = [
        "![Agreement of exit 1 and its threshold on a server whose images become noisy]"
        "(../images/shadow.png)",
        f"A server that checks every early answer (`--shadow-share 1`). From request "
        f"{server['clean_requests']:,} on the images have {server['images']}. The first raise came by "
        f"request {_count(server['first_raise'])}; in the simulation of the same requests after "
        f"{_count(server['simulated'])}.",
        f"Simulated with a share of {result['share']:g} on `{result['bundle']}`, whose exits promise "
        f"{promised}.{note_on([result['bundle']])} The figures are medians of {result['trials']} random "
        f"orders of {result['images']:,} test images; alarms are counted in answers, up to {CORRUPTED:,}, "
        f"raises in requests, up to {result['requests']:,}. Agreement below the promise is in bold.",
        table(head, lines),
        f"The permitted drop of {result['permitted_drop']:g} points held in {held} of {len(changed)} cases. "
        f"{_acted(changed, result)} With clean images thresholds were raised in {raised} of "
        f"{len(clean['raised'])} orders. `python -m benchmarks.guards`",
    ]
    return "\n\n".join(parts) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """The picture of the server's run: the limits of the agreement of exit 1, and its threshold."""
    server = result["server"]
    readings = server["readings"]
    at = [one["requests"] for one in readings]
    known = [one for one in readings if one["high"] is not None]
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    above.fill_between(
        [one["requests"] for one in known],
        [100 * one["low"] for one in known],
        [100 * one["high"] for one in known],
        step="mid",
        color=BLUE,
        alpha=0.35,
        linewidth=0,
        label="limits, valid at every look",
    )
    above.axhline(100 * server["promised"], color=ORANGE, linestyle="--", label="promised")
    above.set_ylabel("agreement of exit 1, %")
    above.legend(loc="lower left", frameon=False)
    thresholds = [min(one["threshold"], 1.0) for one in readings]
    below.step(at, thresholds, where="post", color=BLUE)
    if readings[-1]["threshold"] > 1:
        below.text(at[-1], 0.98, "closed", color=BLUE, ha="right", va="top")
    below.set_ylabel("threshold")
    below.set_ylim(0.7, 1.03)
    below.set_xlabel("requests")
    for axes in (above, below):
        axes.axvline(server["clean_requests"], color=GREY, linewidth=1)
        axes.spines[["top", "right"]].set_visible(False)
    above.text(server["clean_requests"], 100.5, f" {server['images']}", color=GREY, va="bottom")
    save_png(
        figure,
        path,
        "Shadow checks of a server whose images become noisy",
        f"{result['bundle']}, CIFAR-100's test images",
    )


def _agreement(row: dict[str, Any], result: dict[str, Any]) -> str:
    promised = result["promises"].values()
    return " / ".join(
        f"**{100 * value:.1f}**" if value < least else f"{100 * value:.1f}"
        for value, least in zip(row["agreement"], promised, strict=True)
    )


def _acted(rows: list[dict[str, Any]], result: dict[str, Any]) -> str:
    """What acted where an exit was below its promise."""
    promised = list(result["promises"].values())
    broken = [
        row
        for row in rows
        if any(value < least for value, least in zip(row["agreement"], promised, strict=True))
    ]
    if not broken:
        return "No exit was below its promise."
    reported = [row["drift"] for row in broken if None not in row["drift"]]
    raised = [row for row in broken if _middle(row["raised"]) is not None]
    latest = max((max(found) for found in reported), default=None)
    return (
        f"An exit was below its promise in {len(broken)} cases. Drift was reported in every order of "
        f"{len(reported)} of these, after at most {_count(latest)} answers. A "
        f"threshold was raised in most orders of {len(raised)}; in the others the agreement is so close to "
        "the promise that it takes more requests."
    )


def _middle(values: list[int | None]) -> int | None:
    return values[len(values) // 2] if values else None


def _median(values: list[int | None]) -> str:
    middle = _middle(values)
    return "none" if middle is None else f"{middle:,}"


def _count(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"
