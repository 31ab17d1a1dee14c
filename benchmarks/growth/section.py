"""The tables of growth and limits as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.bundles import note_on
from benchmarks.harness.docs import table

LIMITS = (
    ("arithmetic", "the fastest matrix product of the processor, {giga_macs:.0f} GMACs a second"),
    ("stages", "stages in a chain, batches of 16"),
    ("stages_one", "stages in a chain, one image at a time"),
    ("decoded", "the same with decoding"),
    ("http", "over HTTP, 16 busy connections"),
)


def section(result: dict[str, Any]) -> str:
    """All tables and the picture."""
    limits = result["limits"]
    rows = [
        [words.format(**limits), f"{limits[key]:.0f}", f"{limits[key] / limits['arithmetic']:.0%}"]
        for key, words in LIMITS
    ]
    parts = [
        "![Growth with cores, batch size, exits, image size, load and models](../images/growth.png)",
        f"**Limits**: {result['bundle']} at full depth on one core:",
        table(("limit", "images/s", "of the arithmetic"), rows),
        "**Cores**, full depth:",
        _series(
            result["cores"], "cores", lambda row, first: f"{row['rate'] / first['rate']:.2f} x"
        ),
        "**Batch size**, full depth on one core; in process without decoding:",
        _series(
            result["batch"], "batch", lambda row, first: f"{row['rate'] / first['rate']:.2f} x"
        ),
        "**Exits**: a ResNet of eight blocks with random weights, all stages in a chain:",
        table(
            ("exits", "ms an image", "ratio"),
            [
                [row["exits"], f"{row['ms']:.2f}", f"{row['ms'] / result['exits'][0]['ms']:.2f}"]
                for row in result["exits"]
            ],
        ),
        "**Image size**: EfficientNet-Lite0 with random weights, in fp32, at full depth over HTTP, PNG:",
        table(
            ("side", "MMACs", "images/s", "GMACs/s", "lone p50, ms"),
            [
                [
                    *(row["side"], f"{row['macs'] / 1e6:.0f}", f"{row['rate']:.0f}"),
                    *(f"{row['rate'] * row['macs'] / 1e9:.0f}", f"{row['lone_ms']:.1f}"),
                ]
                for row in result["side"]
            ],
        ),
        "**Load**: Poisson, up to saturation:",
        table(
            ("answers", "offered/s", "p50, ms", "p99, ms", "refused"),
            [
                [
                    *(row["mode"], f"{row['rate']:.0f}", f"{row['p50']:.1f}", f"{row['p99']:.1f}"),
                    f"{row['refused']:.0%}",
                ]
                for row in result["load"]
            ],
        ),
        f"{result['machine']}; images: {result['images']}; {result['seconds']:g} s a figure; "
        f"{result['bundle']} where no other network is named; `python -m benchmarks.growth`."
        f"{note_on([result['bundle']])}",
    ]
    return "\n\n".join(parts) + "\n"


def _series(
    series: dict[str, Sequence[dict[str, Any]]],
    key: str,
    ratio: Callable[[dict[str, Any], dict[str, Any]], str],
) -> str:
    rows = [
        [where, row[key], f"{row['rate']:.0f}", ratio(row, found[0])]
        for where, found in series.items()
        for row in found
    ]
    return table(("", key, "images/s", "against one"), rows)
