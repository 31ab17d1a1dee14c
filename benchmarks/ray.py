"""Measures Ray Serve on a cluster of this machine against one server process.

    python -m benchmarks.ray [--bundle BUNDLE]

One `offramp serve`, then both forms on Ray with one replica of everything and with one per core, answer the
same generated images with early exit: the p50 of a single busy connection; then many busy connections, with
the CPU time of all serving processes (proxy, replicas, Ray's own); then the same while a replica is killed
(of the second stage in the form stages), without retries by clients. Writes a JSON file; `--write-docs` puts
it into docs/guide/ray.md and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve

from benchmarks.bundles import note_on
from benchmarks.harness.docs import publish, table
from benchmarks.harness.generator import load
from benchmarks.harness.load import pack
from benchmarks.harness.processes import cpu, tree
from benchmarks.harness.server import generated_images, machine, serving
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100
from serving.ray.app import build
from serving.ray.launch import APP, connect, end, free_port
from serving.settings import available_cores

HERE = Path(__file__).parent
CONNECTIONS = 16
# So that no request is refused.
SETTINGS = {"max_queue_ms": 10_000}
# How long a killed replica may take to be replaced, before the next measurement starts.
RECOVERY_S = 120


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    publish(_arguments(argv), run, section, "guide/ray.md", "ray")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    bundle = load_bundle(arguments.bundle)
    cores = available_cores()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "images.npz"
        pack(generated_images(bundle.manifest.input, 200), packed)
        with serving(bundle.path, **SETTINGS) as (port, process):
            row = measure(port, packed, arguments.seconds, lambda: tree(process))
            rows.append({"layout": "one process", **row})
        connect()
        try:
            port = free_port("127.0.0.1")
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            for form in ("replicas", "stages"):
                for count in sorted({1, cores}):
                    rows.append(on_ray(form, count, bundle.path, port, packed, arguments.seconds))
                    print(rows[-1], file=sys.stderr, flush=True)
        finally:
            end()
    return {
        "machine": machine(),
        "ray": ray.__version__,
        "bundle": bundle.manifest.name,
        "seconds": arguments.seconds,
        "rows": rows,
    }


def on_ray(
    form: str, count: int, bundle: Path, port: int, packed: Path, seconds: float
) -> dict[str, Any]:
    """One form with `count` replicas of everything."""
    # Replicas share the cores; the ingress of the other form computes nothing.
    workers = {"workers": max(1, available_cores() // count)} if form == "replicas" else {}
    # Ray reserves no cores: all replicas share them.
    scaling = {"min_replicas": count, "max_replicas": count, "num_cpus": 0}
    args = {
        "form": form,
        "bundles": [str(bundle)],
        "settings": {**SETTINGS, **workers},
        "replicas": scaling,
        "stages": [scaling],
    }
    serve.run(build(args), name=APP, route_prefix="/")
    row = measure(port, packed, seconds, _own_processes)
    victim = "offramp" if form == "replicas" else "stage2"
    timer = threading.Timer(seconds / 2, lambda: _kill(victim))
    timer.start()
    report = load(port, packed, seconds, "--closed", str(CONNECTIONS))
    timer.join()
    _wait(lambda: len(_replicas(victim)) == count)
    return {"layout": f"{form}, {count} of each", **row, **_killed(report)}


def measure(
    port: int, packed: Path, seconds: float, processes: Callable[[], set[int]]
) -> dict[str, Any]:
    """Latency alone, in ms; answers a second and CPU seconds an answer when busy."""
    # Warm-up of connections, caches and routes.
    load(port, packed, min(seconds, 2), "--closed", str(CONNECTIONS))
    alone = load(port, packed, seconds / 2, "--closed", "1")
    before = {process: cpu(process) for process in processes()}
    busy = load(port, packed, seconds, "--closed", str(CONNECTIONS))
    spent = sum(cpu(process) - before.get(process, 0.0) for process in processes())
    answered = len(busy["latencies"])
    return {
        "p50_ms": float(np.median(alone["latencies"])),
        "per_second": answered / busy["seconds"],
        "cpu_ms": 1000 * spent / answered,
        "failed": busy["offered"] - answered,
    }


def section(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    base = result["rows"][0]
    rows = [
        [
            row["layout"],
            f"{row['p50_ms']:.2f}",
            f"{row['p50_ms'] - base['p50_ms']:+.2f}",
            f"{row['per_second']:.0f}",
            f"{row['cpu_ms']:.2f}",
            f"{1000 / row['cpu_ms']:.0f}",
            f"{row['killed_failed']} of {row['killed_offered']}" if "killed_failed" in row else "-",
            f"{row['killed_longest_ms']:.0f}" if "killed_failed" in row else "-",
        ]
        for row in result["rows"]
    ]
    head = (
        *("layout", "p50 alone, ms", "added, ms", "answers/s", "CPU, ms an answer"),
        *("answers per core and second", "failed when a replica was killed", "longest then, ms"),
    )
    note = (
        f"{result['machine']}, Ray {result['ray']}; {result['bundle']}, early exit, "
        f"{CONNECTIONS} connections, {result['seconds']:g} s a figure; `python -m benchmarks.ray`."
        f"{note_on([result['bundle']])}"
    )
    return f"{table(head, rows)}\n\n{note}\n"


def _own_processes() -> set[int]:
    """The processes of Ray: all children of this process, since the load generator has ended."""
    return tree(os.getpid()) - {os.getpid()}


def _killed(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "killed_failed": report["offered"] - len(report["latencies"]),
        "killed_offered": report["offered"],
        "killed_statuses": report["statuses"],
        "killed_longest_ms": max(report["latencies"]),
    }


def _kill(deployment: str) -> None:
    ray.kill(ray.get_actor(_replicas(deployment)[0], namespace="serve"))


def _replicas(deployment: str) -> list[str]:
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    return [name for name in names if name.startswith(f"SERVE_REPLICA::{APP}#{deployment}#")]


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + RECOVERY_S
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"a killed replica was not replaced within {RECOVERY_S} s")
        time.sleep(0.2)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=CIFAR100)
    parser.add_argument("--seconds", type=float, default=12.0, help="of every figure")
    parser.add_argument("--json", type=Path, default=HERE / "ray.json")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
