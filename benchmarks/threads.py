"""Measures how onnxruntime's threads are best laid out: stages in a chain against one session.

    python -m benchmarks.threads

Every layout runs in a process of its own, since a shared pool is one per process. Four ways alternate on the
same image: the stages one after the other, `Engine.classify` at full depth, one session over the whole
network, and one without the early heads. The medians of `--repeats` runs are reported, then the images a
second of `cores / threads` concurrent callers. `default` sets nothing but the number of threads. Two
networks: the ResNet-18 bundle, and a ResNet-18 of full width with random weights. Writes a JSON file;
`--write-docs` puts it into docs/design/scheduling.md and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.bundles import RESNET18_INT8, note_on
from benchmarks.harness.docs import publish, table
from benchmarks.harness.networks import random_bundle, whole_network
from benchmarks.harness.server import ROOT, machine
from exports.bundle.reader import Bundle, load_bundle
from offramp.onnx_runtime import make_int8_exact
from serving.inference import sessions
from serving.inference.engine import Engine
from serving.settings import available_cores

HERE = Path(__file__).parent
# Runs in a row of each way; the first two refill the caches and are not counted.
BLOCK = 10
LAYOUTS = ("own", "spinning", "shared", "default")
HEAD = ("network", "threads, pool", "stages, ms", "one session, ms", "images/s, all cores")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every layout, print the table, write the JSON; or fill in the docs."""
    arguments = _arguments(argv)
    if arguments.one:
        print(json.dumps(measure(load_bundle(Path(arguments.one)), arguments)))
        return
    publish(arguments, run, section, "design/scheduling.md", "threads")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    return {"machine": machine(), "repeats": arguments.repeats, "rows": _rows(arguments)}


def section(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        [
            *(row["network"], f"{row['threads']} {row['pool']}"),
            *chain_cells(row)[:2],
            f"{row['images_a_second']:.0f}",
        ]
        for row in result["rows"]
    ]
    note = note_on(row["network"] for row in result["rows"])
    return f"{table(HEAD, rows)}\n\n{result['machine']}; `python -m benchmarks.threads`.{note}\n"


def chain_cells(row: dict[str, float]) -> list[str]:
    """The cells of a row of `measure`: stages, one session, their ratio, and stages with decisions."""
    stages, one, decided = (row[key] for key in ("stages_ms", "one_ms", "decided_ms"))
    return [f"{stages:.2f}", f"{one:.2f}", f"{stages / one:.2f}", f"{decided:.2f}"]


def measure(bundle: Bundle, arguments: argparse.Namespace) -> dict[str, float]:
    """One layout, in this process: milliseconds an image at full depth, and images a second."""
    if arguments.pool == "default":
        # onnxruntime's own default: the threads of every session spin while idle.
        sessions.session_options = _plain_options
        pool = "own"
    else:
        pool = arguments.pool
    engine = Engine(bundle, threads=arguments.threads, pool=pool)
    policy = bundle.policy.override(mode="ensemble", max_exit=engine.exits)
    spec = bundle.manifest.input
    image = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3))
    image = image.astype(np.uint8)
    works: dict[str, Callable[[], object]] = {
        "stages_ms": lambda: _chained(engine, image),
        "decided_ms": lambda: engine.classify(image, policy),
    }
    for name, exits in (("one_ms", True), ("last_ms", False)):
        options = sessions.session_options(ort, arguments.threads, pool)
        session = ort.InferenceSession(whole_network(bundle, exits=exits), options)
        feed = {session.get_inputs()[0].name: image}
        works[name] = lambda session=session, feed=feed: session.run(None, feed)
    found = {name: 1000 * value for name, value in take_turns(works, arguments.repeats).items()}
    callers = max(1, available_cores() // arguments.threads)
    count = max(20, arguments.repeats)
    found["images_a_second"] = throughput(works["decided_ms"], callers, count)
    return found


def take_turns(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each of `works`. They alternate in blocks of BLOCK calls, so that other load affects
    all alike; the first two calls of a block are not counted."""
    seen: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(-(-repeats // (BLOCK - 2))):
        for name, work in works.items():
            for number in range(BLOCK):
                began = time.perf_counter()
                work()
                if number >= 2:
                    seen[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seen.items()}


def _chained(engine: Engine, image: np.ndarray) -> None:
    inputs: Any = image
    for stage in range(1, engine.exits + 1):
        features = engine.compute(stage, inputs).features
        inputs = image if features is None else features


def throughput(work: Callable[[], object], callers: int, count: int) -> float:
    """Calls a second of `callers` threads that each call `count` times."""

    def call() -> None:
        for _ in range(count):
            work()

    threads = [threading.Thread(target=call) for _ in range(callers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * count / (time.perf_counter() - began)


def _rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundles = [load_bundle(RESNET18_INT8)]
        if not arguments.quick:
            bundles.append(random_bundle(Path(folder) / "random"))
        for bundle in bundles:
            for threads in sorted({1, 2, available_cores()}):
                for pool in LAYOUTS:
                    # With one thread there is no pool.
                    if threads == 1 and pool != "own":
                        continue
                    found = _in_a_process(bundle.path, threads, pool, arguments.repeats)
                    row = {"network": bundle.manifest.name, "threads": threads, "pool": pool}
                    rows.append({**row, **found})
                    print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _in_a_process(path: Path, threads: int, pool: str, repeats: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.threads", "--one", str(path), "--pool", pool]
    command += ["--threads", str(threads), "--repeats", str(repeats)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _plain_options(runtime: Any, threads: int, pool: str) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    make_int8_exact(options)
    return options


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="the ResNet-18 bundle only")
    parser.add_argument("--json", type=Path, default=HERE / "threads.json")
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--pool", default="own", choices=LAYOUTS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
