"""Measures serving, from the stages to what a client sees; everything in one run on one machine.

    OFFRAMP_DATA=data python -m benchmarks.serving [--bundle BUNDLE ...]

1. The stages in a chain, without and with decisions, against one session over the whole network, one thread.
2. The same stages driven in process by a thread per core (files decoded, full depth) against HTTP with
   busy connections; and the server's CPU time a request, less that of decoding and stages. For every
   bundle, and for a ResNet-18 of full width with random weights.
3. Every bundle at full depth, from its last exit, and with early exit: the maximum rate with busy
   connections, then Poisson load from another process at shares of full depth's maximum: latencies from
   when a request was due, goodput (answers in time a second), and the accuracy of the answers.

Server and load have a core each, or half of the cores, and the rates in process are of the server's half. The
generator's CPU time is in the JSON. Images are the test split of the bundles' data set as PNG, or generated
ones without accuracy. Give the bundle of each precision to compare them. Writes a JSON file; `--write-docs`
puts it into docs/design/benchmarks.md and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import threads
from benchmarks.bundles import note_on
from benchmarks.harness.docs import publish, table
from benchmarks.harness.generator import load
from benchmarks.harness.images import Images, label, test_images
from benchmarks.harness.networks import random_bundle
from benchmarks.harness.processes import cpu
from benchmarks.harness.server import ROOT, halves, machine, on_cores, serving
from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import CIFAR100
from serving.inference.engine import Engine, decode
from serving.settings import available_cores

HERE = Path(__file__).parent
MODES = {"full depth": "mode=ensemble", "last exit": "mode=exit", "early exit": ""}
FULL_DEPTH = MODES["full depth"]
CONNECTIONS = 16
MAX_PIXELS = 1 << 26


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON; or fill in the docs."""
    publish(_arguments(argv), run, section, "design/benchmarks.md", "serving")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    seconds, slo = arguments.seconds, arguments.slo_ms
    bundles = [load_bundle(path) for path in arguments.bundle or [CIFAR100]]
    found: dict[str, Any] = {
        "machine": machine(),
        "seconds": seconds,
        "slo_ms": slo,
        "chain": [],
        "http": [],
        "open": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for number, bundle in enumerate(bundles):
            images = test_images(bundle, arguments.data, Path(folder) / f"{number}.npz")
            found["images"] = "test split" if images.labels else "generated"
            found["chain"].append(chain(bundle, arguments.repeats))
            found["http"].append(over_http(bundle, images, seconds))
            found["open"] += open_loop(bundle, images, arguments)
        if not arguments.quick:
            large = random_bundle(Path(folder) / "random")
            images = test_images(large, None, Path(folder) / "random.npz")
            found["chain"].append(chain(large, arguments.repeats // 4))
            found["http"].append(over_http(large, images, seconds))
    return found


def chain(bundle: Bundle, repeats: int) -> dict[str, Any]:
    """Stages one after the other against one session, one thread, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.threads", "--one", str(bundle.path)]
    command += ["--repeats", str(max(repeats, 5))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return {"bundle": label(bundle), **json.loads(done.stdout)}


def over_http(bundle: Bundle, images: Images, seconds: float) -> dict[str, Any]:
    """Images a second at full depth in process and over HTTP, and milliseconds of CPU a request besides
    decoding and stages."""
    engine = Engine(bundle)
    policy = bundle.policy.override(mode="ensemble", max_exit=engine.exits)
    one = InProcess(engine, policy, images.files)
    began = time.thread_time()
    for _ in range(50):
        one()
    cpu = (time.thread_time() - began) / 50
    began = time.perf_counter()
    one()
    count = max(5, int(seconds / max(time.perf_counter() - began, 1e-6)))
    server_cores, load_cores = halves()
    with on_cores(server_cores):
        in_process = threads.throughput(one, available_cores(), count)
    with server(bundle) as (port, spent):
        before = spent()
        busy = load(port, images.packed, seconds, *closed(FULL_DEPTH), cores=load_cores)
        after = spent()
        alone = load(port, images.packed, seconds / 2, *closed(FULL_DEPTH, 1), cores=load_cores)
    answered = len(busy["latencies"])
    single = _median_seconds(one)
    return {
        "bundle": label(bundle),
        "in_process": in_process,
        "http": answered / busy["seconds"],
        "ratio": answered / busy["seconds"] / in_process,
        "cpu_besides_ms": 1000 * ((after - before) / answered - cpu),
        "added_p50_ms": float(np.median(alone["latencies"])) - 1000 * single,
        "generator_cpu_ms": 1000 * busy["cpu_s"] / answered,
    }


def open_loop(
    bundle: Bundle, images: Images, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Every mode at every share of full depth's capacity, which is measured first."""
    rows: list[dict[str, Any]] = []
    seconds, slo = arguments.seconds, arguments.slo_ms
    # For answers in time, no request may wait longer than half of it.
    with server(bundle, max_queue_ms=slo / 2) as (port, _):
        most = {}
        for mode, query in MODES.items():
            busy = load(port, images.packed, seconds / 2, *closed(query), cores=halves()[1])
            most[mode] = len(busy["latencies"]) / busy["seconds"]
        for share in arguments.shares:
            for mode, query in MODES.items():
                rate = share * most["full depth"]
                options = ("--rate", str(rate), "--path", address(query))
                report = load(port, images.packed, seconds, *options, cores=halves()[1])
                row = {"bundle": label(bundle), "mode": mode, "most": most[mode], "rate": rate}
                rows.append({**row, **summary(report, images.labels, seconds, slo)})
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def summary(
    report: dict[str, Any],
    labels: list[int] | None,
    seconds: float,
    slo: float,
    refusals: Sequence[str] = ("429",),
) -> dict[str, Any]:
    """The figures of one open-loop run; `refusals` are the statuses of refused requests."""
    latencies = report["latencies"] or [float("nan")]
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist()
    answers = report["answers"]
    refused = sum(report["statuses"].get(status, 0) for status in refusals)
    return {
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "goodput": sum(latency <= slo for latency in report["latencies"]) / seconds,
        "refused": refused / max(1, report["offered"]),
        "failed": report["offered"] - len(answers) - refused,
        "accuracy": accuracy(report, labels),
        "mean_exit": float(np.mean([exit_ for _, _, exit_ in answers])) if answers else None,
        # If the generator itself was late, the run says little about the server.
        "generator_cpu": report["cpu_s"] / seconds,
        "generator_late_p99_ms": float(np.percentile(report["late_by"], 99)),
    }


def accuracy(report: dict[str, Any], labels: list[int] | None) -> float | None:
    """Percent of right answers; None without labels or answers."""
    if labels is None or not report["answers"]:
        return None
    return 100 * float(np.mean([labels[image] == index for image, index, _ in report["answers"]]))


@contextmanager
def server(bundle: Bundle, **settings: object) -> Iterator[tuple[int, Callable[[], float]]]:
    """A server of `bundle`: its port, and a function that returns its CPU seconds so far."""
    with serving(bundle.path, cores=halves()[0], **settings) as (port, process):
        yield port, lambda: cpu(process)


def section(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    chains = [[row["bundle"], *threads.chain_cells(row)] for row in result["chain"]]
    https = [
        [
            row["bundle"],
            f"{row['in_process']:.0f}",
            f"{row['http']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['cpu_besides_ms']:.2f}",
            f"{row['added_p50_ms']:.2f}",
        ]
        for row in result["http"]
    ]
    by_server: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in result["open"]:
        key = (row["bundle"], row["mode"], f"{row['most']:.0f}")
        by_server.setdefault(key, []).append(row)
    opens = [
        [
            *server,
            *(
                ", ".join(f"{row[key]:{form}}" for row in rows)
                for key, form in (
                    ("rate", ".0f"),
                    ("p50", ".1f"),
                    ("p99", ".1f"),
                    ("goodput", ".0f"),
                    ("refused", ".0%"),
                )
            ),
        ]
        for server, rows in by_server.items()
    ]
    slo = f"{result['slo_ms']:g}"
    parts = [
        table(("bundle", "stages, ms", "one session, ms", "ratio", "with decisions, ms"), chains),
        table(
            (
                *("bundle", "in process, images/s", "HTTP, images/s", "ratio"),
                *("CPU besides, ms a request", "added p50, ms"),
            ),
            https,
        ),
        table(
            (
                *("bundle", "answers", "maximum/s", "offered/s", "p50, ms", "p99, ms"),
                *(f"goodput/s ({slo} ms)", "refused"),
            ),
            opens,
        ),
        f"{result['machine']}; images: {result['images']}; {result['seconds']:g} s a figure; "
        f"`python -m benchmarks.serving`.{note_on(row['bundle'] for row in result['chain'])}",
    ]
    return "\n\n".join(parts) + "\n"


class InProcess:
    """Decodes and classifies one file after the other, as a worker thread of the server does."""

    def __init__(self, engine: Engine, policy: Policy, files: list[bytes]) -> None:
        self._engine, self._policy, self._files = engine, policy, files
        self._next = 0

    def __call__(self) -> None:
        file = self._files[self._next % len(self._files)]
        self._next += 1
        pixels = decode(file, self._engine.manifest.input, MAX_PIXELS)
        self._engine.classify(pixels[None], self._policy)


def _median_seconds(one: InProcess) -> float:
    return threads.take_turns({"": one}, 50)[""]


def closed(query: str, connections: int = CONNECTIONS) -> tuple[str, ...]:
    """Options of the load generator for `connections` busy connections."""
    return ("--closed", str(connections), "--path", address(query))


def address(query: str) -> str:
    """The path that classifies an image with `query`."""
    return f"/v1/classify?top_k=1&{query}"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, action="append", help="once per bundle")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--seconds", type=float, default=12.0, help="of every figure")
    parser.add_argument("--repeats", type=int, default=400, help="of the chained stages")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=(0.5, 0.8, 1.5),
        help="offered rates, as shares of full depth's maximum",
    )
    parser.add_argument("--slo-ms", type=float, default=100.0, help="what counts as in time")
    parser.add_argument("--quick", action="store_true", help="without the large network")
    parser.add_argument("--json", type=Path, default=HERE / "serving.json")
    parser.add_argument("--write-docs", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
