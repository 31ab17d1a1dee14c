"""The comparison's figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.harness.docs import table
from benchmarks.serving import CONNECTIONS

OURS = "Offramp"
# Our rows that a product is compared with.
COMPARED = ("early exit", "full depth")


def section(result: dict[str, Any]) -> str:
    """Ratios to each peer's best layout, maximum rates, and latencies."""
    rows, slo = result["rows"], f"{result['slo_ms']:g}"
    bundles = list(dict.fromkeys(row["bundle"] for row in rows))
    times = [
        line
        for bundle in bundles
        for line in ratios([row for row in rows if row["bundle"] == bundle])
    ]
    most = [
        [
            *(row["bundle"], row["server"], f"{row['most']:.0f}"),
            f"{row['most_range'][0]:.0f} to {row['most_range'][1]:.0f}",
            *(f"{row['cpu_ms']:.2f}", f"{row['goodput']:.0f}", f"{row['alone_ms']:.2f}"),
            _percent(row["accuracy"]),
        ]
        for row in rows
    ]
    opens = [
        [
            *(row["bundle"], row["server"], f"{one['rate']:.0f}"),
            *(f"{one['p50']:.1f}", f"{one['p99']:.1f}", f"{one['goodput']:.0f}"),
            *(f"{one['refused']:.0%}", f"{one['failed']:.0f}", _percent(one["accuracy"])),
        ]
        for row in rows
        for one in row["open"]
    ]
    used = ", ".join(f"{package} {version}" for package, version in result["versions"].items())
    left_out = "".join(f" Left out: {name} ({why})." for name, why in result["left_out"].items())
    compared = [f"{what}, {mode}" for what in ("most", "goodput", "CPU") for mode in COMPARED]
    parts = [
        "Ratios of Offramp to the best layout of each peer (of CPU time: of the peer to Offramp):",
        table(("bundle", "against", *compared), times),
        f"Maximum rate ({CONNECTIONS} busy connections), best goodput of any offered rate, and one request "
        "after the other:",
        table(
            (
                *("bundle", "server", "most/s", "range", "CPU, ms an answer"),
                *(f"best goodput/s ({slo} ms)", "one at a time, p50 ms", "accuracy, %"),
            ),
            most,
        ),
        "Under Poisson load:",
        table(
            (
                *("bundle", "server", "offered/s", "p50, ms", "p99, ms", f"goodput/s ({slo} ms)"),
                *("refused", "failed", "accuracy, %"),
            ),
            opens,
        ),
        f"{result['machine']}; peers: {used}; images: {result['images']}; {result['seconds']:g} s a figure, "
        f"medians of {result['rounds']} rounds; `python -m benchmarks.peers`.{left_out}",
    ]
    return "\n\n".join(parts) + "\n"


def ratios(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line per peer, from one bundle's rows."""
    ours = [row for mode in COMPARED for row in rows if row["server"] == f"{OURS}, {mode}"]
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


def _times(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
