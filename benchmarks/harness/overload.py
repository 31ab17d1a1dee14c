"""Goodput of a server that is offered more than it can answer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.generator import load

# Offered rates, as shares of what busy connections get answered: the best goodput of the first three is the
# peak; the last is the overload.
PEAK_SHARES = (0.9, 1.0, 1.1)
OVERLOAD_SHARE = 3.0
ROUNDS = 3
# An answer counts if it comes within this time from when the request was due.
GOOD_MS = 1000


def overload(port: int, packed: Path, seconds: float, cores: Sequence[int]) -> dict[str, float]:
    """Goodput in answers a second at about the server's capacity, and at three times as much: medians of
    ROUNDS interleaved runs, with the load on `cores`."""
    busy = load(port, packed, seconds, "--closed", "64", cores=cores)
    capacity = len(busy["latencies"]) / busy["seconds"]
    runs: dict[float, list[dict[str, float]]] = {
        share: [] for share in (*PEAK_SHARES, OVERLOAD_SHARE)
    }
    for number in range(ROUNDS):
        for share, found in runs.items():
            options = ("--rate", str(share * capacity), "--seed", str(number))
            found.append(_per_second(load(port, packed, seconds, *options, cores=cores)))
    medians: dict[float, dict[str, float]] = {
        share: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for share, found in runs.items()
    }
    peak = max(medians[share]["goodput"] for share in PEAK_SHARES)
    return {
        "capacity": capacity,
        "peak": peak,
        "kept": medians[OVERLOAD_SHARE]["goodput"] / peak,
        **medians[OVERLOAD_SHARE],
    }


def _per_second(report: dict[str, Any]) -> dict[str, float]:
    """Requests a second of an open-loop run, until the last answer, by outcome."""
    refused = report["statuses"].get("429", 0)
    counts = {
        "offered": report["offered"],
        "goodput": sum(latency < GOOD_MS for latency in report["latencies"]),
        "refused": refused,
        "other": report["offered"] - len(report["latencies"]) - refused,
    }
    return {name: count / report["seconds"] for name, count in counts.items()}
