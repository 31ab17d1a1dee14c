"""The trials as Markdown: the networks, the best pairs, and how near the targets they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.docs import table

Row = dict[str, Any]


def section(result: dict[str, Any]) -> str:
    """Picture, tables and the nearest candidates. Pairs of a short trial and long training are in the picture
    alone."""
    networks, pairs = result["networks"], result["pairs"]
    certified = [row for row in pairs if row["certified"]]
    best = undominated([row for row in certified if row["training"] != "mixed"])
    parts = [
        "![Accuracy against mean milliseconds of every candidate](../images/trials.png)",
        table(
            ("network", "training", "exits, %", "exits, ms", "certified, %", "mean ms"),
            [_alone(row) for row in networks],
        ),
        f"In a pair the first network answers where it is confident. {len(certified)} of {len(pairs)} pairs "
        "have a certified policy. Of those of equal training, these are the ones that no other exceeds in "
        "both accuracy and time:",
        table(
            ("pair", "training", "full depth, %", "ms", "certified, %", "mean ms", "of full depth"),
            [_pair(row) for row in best],
        ),
        _targets([row for row in (*networks, *pairs) if row["certified"]], result["targets"]),
        f"int8, one image at a time on one thread of {result['machine']}; medians of {result['repeats']} "
        f"interleaved turns of {result['images_timed']} images, at a load average of "
        f"{result['load_average']:g} before the first. Accuracies are of {result['test_images']:,} "
        f"test images. Policies are certified at {result['permitted_drop']:g} points on the held-out split. "
        "The share of full depth is of multiply-accumulates. "
        f"`{result['command']}`",
    ]
    return "\n\n".join(parts) + "\n"


def undominated(rows: Sequence[Row]) -> list[Row]:
    """The rows, most accurate first, that no other row of the same training equals or exceeds in both
    accuracy and time under its certified policy."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda r: (-r["certified"]["accuracy"], r["certified"]["ms"])):
        rivals = [other for other in found if other["training"] == row["training"]]
        if all(row["certified"]["ms"] < other["certified"]["ms"] for other in rivals):
            found.append(row)
    return found


def label(row: Row) -> str:
    """The networks of a row, in the order in which they take the image."""
    return ", then ".join(f"`{name}`" for name in row["networks"])


def _alone(row: Row) -> tuple[str, ...]:
    certified = row["certified"]
    return (
        label(row),
        row["recipe"],
        " ".join(f"{accuracy:.1f}" for accuracy in row["exits"]),
        " ".join(f"{ms:.2f}" for ms in row["exit_ms"]),
        f"{certified['accuracy']:.2f}" if certified else "-",
        f"{certified['ms']:.2f}" if certified else "-",
    )


def _pair(row: Row) -> tuple[str, ...]:
    full, certified = row["full_depth"], row["certified"]
    return (
        label(row),
        row["training"],
        f"{full['accuracy']:.2f}",
        f"{full['ms']:.2f}",
        f"{certified['accuracy']:.2f}",
        f"{certified['ms']:.2f}",
        f"{certified['of_full_depth']:.2f}",
    )


def _targets(rows: Sequence[Row], targets: dict[str, float]) -> str:
    """A sentence for each limit: the candidate that comes nearest to the other one within it."""
    accuracy, ms = targets["accuracy"], targets["ms"]
    accurate = [row for row in rows if row["certified"]["accuracy"] >= accuracy]
    fast = [row for row in rows if row["certified"]["ms"] <= ms]
    sentences = [f"The targets are {accuracy:g} % in {ms:g} ms."]
    if accurate:
        row = min(accurate, key=lambda r: r["certified"]["ms"])
        found = row["certified"]["ms"]
        sentences.append(
            f"The fastest of at least {accuracy:g} % takes {found:.2f} ms: {label(row)}."
        )
    else:
        sentences.append(f"No certified policy reaches {accuracy:g} %.")
    if fast:
        row = max(fast, key=lambda r: r["certified"]["accuracy"])
        found = row["certified"]["accuracy"]
        sentences.append(f"The most accurate within {ms:g} ms has {found:.2f} %: {label(row)}.")
    else:
        sentences.append(f"No certified policy takes at most {ms:g} ms.")
    return " ".join(sentences)
