"""A latency target under a step and a spike of load, against a fixed policy and against shedding alone.

    OFFRAMP_DATA=data python -m benchmarks.gears          # eleven minutes on two quiet cores

Full depth's capacity is measured first, with busy connections, and what work costs the server. Then the load
is usual (half of the capacity), high (1.5 or 3 times, for 20 or 2 seconds) and usual again, against three
servers: gears from full depth down to the floor, the bundle's own policy, and full depth. The server has a
core of its own, and the load another. The simulation is run with the same arrivals. Writes a JSON file and a
picture; `--write-docs` puts them into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gears.check import at_constant_load, usable, with_gears
from benchmarks.gears.host import as_json, measure_host
from benchmarks.gears.runs import (
    MODES,
    Scenario,
    Setting,
    figures,
    prepare,
    run_scenario,
    scenarios,
)
from benchmarks.gears.section import draw, over_time, section
from benchmarks.harness.docs import DOCS, publish
from benchmarks.harness.images import Images, label, test_images
from benchmarks.harness.server import halves, machine
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100

RESULTS = Path(__file__).parents[1]
BIN_S = 1.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write JSON and picture; or fill in the docs."""
    arguments = _arguments(argv)
    publish(arguments, run, section, "guide/gears.md", "gears")
    draw(json.loads(arguments.json.read_text("utf-8")), arguments.picture)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    server_cores, load_cores = halves()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full, own, plan = prepare(arguments.bundle, folder)
        images = test_images(load_bundle(full), arguments.data, folder / "images.npz")
        setting = Setting(
            full,
            own,
            plan,
            arguments.target_ms,
            max(plan.gears[0].accuracy - arguments.points, 0.0),
            arguments.max_queue_ms,
            # The event loop and the only worker share one core.
            server_cores[:1],
            load_cores,
        )
        gears = [gear.model_dump(include={"accuracy", "exit_shares"}) for gear in usable(setting)]
        with setting.server("shedding") as (port, pid):
            host, most = measure_host(port, pid, setting, images, arguments.shorter * 10)
            seconds = arguments.shorter * 20
            constant = at_constant_load(port, pid, setting, host, images, most, seconds)
        runs = []
        for scenario in scenarios(most, arguments.factors, arguments.shorter):
            for mode in MODES:
                report = run_scenario(setting, mode, scenario, images)
                row = describe(scenario, mode, report, images)
                if mode == "gears":
                    row["simulated"] = with_gears(
                        host,
                        gears,
                        scenario,
                        report["core_share"],
                        setting.max_queue_ms,
                        setting.target_ms,
                    )
                runs.append(row)
                print(
                    mode, scenario.name, scenario.factor, row["high"], file=sys.stderr, flush=True
                )
    return {
        "machine": machine(),
        "bundle": label(load_bundle(arguments.bundle)),
        "images": "test split" if images.labels else "generated",
        "capacity": most,
        "target_ms": setting.target_ms,
        "floor": setting.floor,
        "max_queue_ms": setting.max_queue_ms,
        "gears": gears,
        "host": as_json(host),
        "constant": constant,
        "runs": runs,
    }


def describe(
    scenario: Scenario, mode: str, report: dict[str, Any], images: Images
) -> dict[str, Any]:
    """One run: its figures while the load is high, while it is usual, and over time."""
    begin, end = scenario.loaded
    length = sum(seconds for seconds, _ in scenario.parts)
    bins = [
        figures(report, images.labels, number * BIN_S, (number + 1) * BIN_S)
        for number in range(max(1, int(length / BIN_S)))
    ]
    usual = {
        **report,
        "due": [due if not begin <= due < end else float("nan") for due in report["due"]],
    }
    return {
        "scenario": scenario.name,
        "factor": scenario.factor,
        "mode": mode,
        "parts": scenario.parts,
        "loaded": [begin, end],
        "core_share": report["core_share"],
        "cpu_ms": report["cpu_ms"],
        "high": figures(report, images.labels, begin, end),
        "usual": figures(usual, images.labels, 0.0, length),
        "over_time": over_time(bins, BIN_S),
        "shifts": report.get("shifts", []),
        # If the generator itself was late, the run says little about the server.
        "generator_late_p99_ms": report["late_p99_ms"],
    }


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=CIFAR100)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--target-ms", type=float, default=100.0)
    parser.add_argument("--points", type=float, default=2.0, help="the floor, below full depth")
    parser.add_argument("--max-queue-ms", type=float, default=300.0)
    parser.add_argument("--factors", type=float, nargs="+", default=(1.5, 3.0))
    parser.add_argument("--shorter", type=float, default=1.0, help="factor of all times")
    parser.add_argument("--json", type=Path, default=RESULTS / "gears.json")
    parser.add_argument("--picture", type=Path, default=DOCS / "images" / "gears.png")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
