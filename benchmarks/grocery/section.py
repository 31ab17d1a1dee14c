"""The figures as Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.grocery.bundles import ALONE, CASCADE, FRONTED, SMALL
from benchmarks.grocery.policies import HALF, MAX_DISAGREEMENT, MAX_LOSS, points_lost
from benchmarks.harness.docs import table

NAMES = {ALONE: "Lite2 alone", FRONTED: "front, Lite2", CASCADE: "Lite0, Lite2"}
AIMS = {
    "agreement": "99 % agreement",
    "accuracy": "0.5 points",
    "half": "half the cost",
}


def section(result: dict[str, Any]) -> str:
    """What each configuration does, what it costs, which images policies need, and how near the goal is."""
    counts = result["pictures"]
    small = (
        "Lite0 is fine-tuned on the labels (`benchmarks/grocery/lite0.toml`)."
        if result["small"] == SMALL
        else "The cascade's Lite0 is the last exit of the distilled front, as an ONNX file of its own."
    )
    parts = [
        "EfficientNet-Lite2 at 260 pixels, fine-tuned on the Grocery photographs, alone, behind a front that "
        "`offramp front` distilled from it, and as a cascade with EfficientNet-Lite0 at 160. "
        f"{small} Policies are chosen on val ({counts['val']:,} images) and a random half of the official "
        f"test split ({counts['tuned_on']:,}), and judged on the other half ({counts['judged_on']:,}), on "
        "which nothing was trained or chosen. Random halves are alike; images of other shops may differ.",
        "*99 % agreement* is the goal of `offramp front`; *0.5 points*, below the ensemble of all exits, is "
        "that of `offramp cascade` with labels; *half the cost* is the most accurate policy at half of "
        "Lite2's MACs, `offramp tune --budget`. *Lost* answers are right with Lite2 alone and wrong with the "
        "policy; *gained* ones are the other way round.",
        rows(result),
        verdict(result),
        "The front in fp32 for 99 % agreement, by the images that its policy is chosen on. *Expected* is "
        "measured on those images, *found* on the judged ones:",
        calibrations(result),
        "The limit: the best threshold in hindsight, chosen on the judged images themselves:",
        limits(result),
        f"{result['machine']}. Cost: mean MACs as a share of Lite2's. ms: CPU time of the networks for one "
        "image on one thread, without decoding. Answers/s: JPEG files over HTTP, server and load on "
        "separate cores"
        + (
            f", {result['seconds']:g} s, median of {result['rounds']} rounds. "
            if result["seconds"]
            else "; not measured yet. "
        )
        + "`python -m benchmarks.grocery data/grocery`",
    ]
    return "\n\n".join(parts) + "\n"


def rows(result: dict[str, Any]) -> str:
    """Every configuration, precision and aim."""
    return table(
        (
            *(
                "networks",
                "policy for",
                "precision",
                "accuracy, %",
                "agreement, %",
                "lost / gained",
            ),
            *("cost", "ms", "answers/s"),
        ),
        [
            [
                NAMES[row["configuration"]],
                _aim(row),
                row["precision"],
                f"{row['accuracy']:.2f}",
                f"{row['agreement']:.2f}",
                f"{row['lost']} / {row['gained']}",
                f"{row['cost']:.2f}",
                f"{row['ms']:.1f}",
                "-" if row["rate"] is None else f"{row['rate']:.1f}",
            ]
            for row in result["rows"]
        ],
    )


def verdict(result: dict[str, Any]) -> str:
    """Which rows reach at most half of the cost with 99 % agreement or a loss of at most half a point."""
    cheap = [row for row in result["rows"] if row["cost"] <= HALF]
    alike = [row for row in cheap if row["agreement"] >= 100 * (1 - MAX_DISAGREEMENT)]
    count = result["pictures"]["judged_on"]
    accurate = [row for row in cheap if points_lost(row, count) <= 100 * MAX_LOSS]

    def named(found: list[dict[str, Any]]) -> str:
        described = [
            f"{NAMES[row['configuration']]} in {row['precision']} ({row['cost']:.2f})"
            for row in found
        ]
        return "; ".join(described) or "none"

    sentences = [
        f"At most {HALF:g} of Lite2's cost with at most {100 * MAX_LOSS:g} points less accuracy than Lite2: "
        f"{named(accurate)}. With at least {100 * (1 - MAX_DISAGREEMENT):g} % agreement: {named(alike)}."
    ]
    for row in result["rows"]:
        if "divisions" in row:
            over = row["divisions"]
            low, high = over["points_lost_range"]
            sentences.append(
                f"Over {over['divisions']} random divisions of the test split, {NAMES[row['configuration']]} "
                f"in {row['precision']} at half the cost loses {over['points_lost']:.2f} points on average "
                f"({low:.2f} to {high:.2f}) at {over['cost']:.2f} of the cost."
            )
    return " ".join(sentences)


def calibrations(result: dict[str, Any]) -> str:
    """The front's policy by the images that it is chosen on."""
    return table(
        (
            "chosen on",
            "images",
            "certified",
            "agreement, % (expected, found)",
            "cost (expected, found)",
        ),
        [
            [
                row["pictures"],
                f"{row['count']:,}",
                "yes" if row["certified"] else "no",
                f"{row['expected']['agreement']:.2f}, {row['found']['agreement']:.2f}",
                f"{row['expected']['cost']:.2f}, {row['found']['cost']:.2f}",
            ]
            for row in result["calibrations"]
        ],
    )


def limits(result: dict[str, Any]) -> str:
    """The best threshold in hindsight."""

    def cell(value: float | None) -> str:
        return "not reached" if value is None else f"{value:.2f}"

    return table(
        (
            *("networks", "precision", "cost at 99 % agreement", "cost at 0.5 points"),
            *(f"agreement at a cost of {HALF:g}, %", f"points lost at a cost of {HALF:g}"),
        ),
        [
            [
                NAMES[row["configuration"]],
                row["precision"],
                *(cell(row[key]) for key in ("cost_at_agreement", "cost_at_accuracy")),
                *(cell(row[key]) for key in ("agreement_at_half", "loss_at_half")),
            ]
            for row in result["limits"]
        ],
    )


def _aim(row: dict[str, Any]) -> str:
    if row["configuration"] == ALONE:
        return "-"
    return AIMS[row["aim"]] + (", certified" if row["certified"] else "")
