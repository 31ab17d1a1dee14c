"""The picture of the trials: accuracy against mean milliseconds of every candidate, with the targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.trials.section import Row, undominated
from offramp.figures import BLUE, GREY, INK, ORANGE, RED, save_png

# Short trials are hollow, pairs of a short and a long one pale, long training filled.
FILL = {"short": "none", "mixed": "full", "long": "full"}
OPACITY = {"short": 1.0, "mixed": 0.35, "long": 1.0}
WORDS = {"short": "short trials", "mixed": "one of each", "long": "long training"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Static networks, networks with early exits and pairs; short trials and long training are marked."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    networks, pairs, targets = result["networks"], result["pairs"], result["targets"]
    axes.axhline(targets["accuracy"], linestyle="--", linewidth=1, color=RED)
    axes.axvline(targets["ms"], linestyle="--", linewidth=1, color=RED)
    axes.annotate(
        f"targets: {targets['accuracy']:g} %, {targets['ms']:g} ms",
        (targets["ms"], targets["accuracy"]),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        size=8,
        color=RED,
    )
    for training, words in WORDS.items():
        static = [row for row in networks if row["training"] == training]
        points = [
            point for row in static for point in zip(row["exit_ms"], row["exits"], strict=True)
        ]
        _points(axes, points, "s", GREY, training, f"a network's exit, {words}")
        for rows, marker, colour, what in (
            (networks, "o", BLUE, "a network with early exits"),
            (pairs, "*", ORANGE, "a pair"),
        ):
            found = [row for row in rows if row["training"] == training and row["certified"]]
            _points(axes, _certified(found), marker, colour, training, f"{what}, {words}")
    for row in networks:
        _name(axes, row["networks"], (row["exit_ms"][-1], row["exits"][-1]), below=True)
    for row in undominated([row for row in pairs if row["certified"]]):
        if row["training"] != "mixed":
            _name(axes, row["networks"], *_certified([row]), below=False)
    axes.set(xlabel="mean ms an image (int8, one thread)", ylabel="accuracy, test split, %")
    axes.legend(frameon=False, loc="lower right", labelcolor=INK, fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, "Networks for the embedded bundle", "benchmarks/trials.json")


def _certified(rows: Sequence[Row]) -> list[tuple[float, float]]:
    return [(row["certified"]["ms"], row["certified"]["accuracy"]) for row in rows]


def _points(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    marker: str,
    colour: str,
    training: str,
    words: str,
) -> None:
    if points:
        axes.plot(
            *zip(*points, strict=True),
            marker,
            color=colour,
            fillstyle=FILL[training],
            alpha=OPACITY[training],
            markersize=11 if marker == "*" else 6,
            label=words,
        )


def _name(axes: Axes, networks: Sequence[str], at: tuple[float, float], *, below: bool) -> None:
    text = " + ".join(name.removeprefix("trial-").removeprefix("cifar100-") for name in networks)
    axes.annotate(
        text, at, xytext=(5, -10 if below else 5), textcoords="offset points", size=7, color=INK
    )
