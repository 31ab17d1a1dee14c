"""The comparison's figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.bundles import note_on
from benchmarks.harness.docs import table
from benchmarks.serving import CONNECTIONS

OURS = "Offramp"
# Our rows that a product is compared with, where they were measured.
COMPARED = ("early exit", "last exit", "full depth")


def section(result: dict[str, Any], picture: str = "peers.png") -> str:
    """Maximum rates and latencies of every server, by bundle; ratios to each peer's best layout."""
    rows = result["rows"]
    by_bundle = {
        bundle: [row for row in rows if row["bundle"] == bundle]
        for bundle in dict.fromkeys(row["bundle"] for row in rows)
    }
    modes = [mode for mode in COMPARED if any(row["server"] == _ours(mode) for row in rows)]
    compared = [f"{what}, {mode}" for what in ("maximum", "goodput", "CPU") for mode in modes]
    used = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    left_out = "".join(f" Left out: {name} ({why})." for name, why in result["left_out"].items())
    parts = [
        f"![Latency against load, for Offramp and the best layout of each peer](../images/{picture})"
    ]
    for bundle, of_bundle in by_bundle.items():
        parts += [
            f"**{bundle}**: {CONNECTIONS} busy connections, half of the best peer's maximum, and one request "
            "after the other:",
            capacity(of_bundle),
            f"Poisson load, goodput within {result['slo_ms']:g} ms:",
            load(of_bundle),
        ]
    parts += [
        "Ratios of Offramp to the best layout of each peer (of CPU time: of the peer to Offramp):",
        table(
            ("bundle", "against", *compared),
            [line for of_bundle in by_bundle.values() for line in ratios(of_bundle)],
        ),
    ]
    parts.append(
        f"{result['machine']}; peers: {used}; images: {result['images']}; {result['seconds']:g} s a figure, "
        f"medians of {result['rounds']} rounds; `python -m benchmarks.peers`.{left_out}{note_on(by_bundle)}"
    )
    return "\n\n".join(parts) + "\n"


def capacity(rows: Sequence[dict[str, Any]]) -> str:
    """The table of maximum rates, of latencies at the first offered rate and of lone requests, from one
    bundle's rows."""
    rate = f"{rows[0]['open'][0]['rate']:.0f}"
    return table(
        (
            *(
                "server",
                "maximum/s (range)",
                f"p50, ms at {rate}/s",
                "p99, ms",
                "CPU, ms an answer",
            ),
            *("accuracy, %", "lone p50, ms"),
        ),
        [
            [
                row["server"],
                f"{row['most']:.0f} ({row['most_range'][0]:.0f}-{row['most_range'][1]:.0f})",
                *(f"{row['open'][0][percentile]:.1f}" for percentile in ("p50", "p99")),
                *(f"{row['cpu_ms']:.2f}", _percent(row["accuracy"]), f"{row['alone_ms']:.2f}"),
            ]
            for row in rows
        ],
    )


def load(rows: Sequence[dict[str, Any]]) -> str:
    """The table of goodput and latency at each offered rate, from one bundle's rows."""
    rates = [f"{one['rate']:.0f}" for one in rows[0]["open"]]
    names = [[f"{what} at {rates[0]}/s", *rates[1:]] for what in ("goodput/s", "p99, ms")]
    return table(
        ("server", *names[0], *names[1], f"refused at {rates[-1]}/s", "failed"),
        [
            [
                row["server"],
                *(f"{one['goodput']:.0f}" for one in row["open"]),
                *(f"{one['p99']:.1f}" for one in row["open"]),
                *(f"{row['open'][-1]['refused']:.0%}", f"{row['open'][-1]['failed']:.0f}"),
            ]
            for row in rows
        ],
    )


def ratios(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line per peer, from one bundle's rows."""
    ours = [row for mode in COMPARED for row in rows if row["server"] == _ours(mode)]
    lines = []
    for product in dict.fromkeys(row["product"] for row in rows if row["product"] != OURS):
        theirs = [row for row in rows if row["product"] == product]
        most = max(row["most"] for row in theirs)
        goodput = max(row["goodput"] for row in theirs)
        cpu = min(row["cpu_ms"] for row in theirs)
        lines.append(
            [
                *(rows[0]["bundle"], product),
                *(_times(row["most"], most) for row in ours),
                *(_times(row["goodput"], goodput) for row in ours),
                *(_times(cpu, row["cpu_ms"]) for row in ours),
            ]
        )
    return lines


def _ours(mode: str) -> str:
    return f"{OURS}, {mode}"


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
