"""The headline figures of serving, in a few minutes: ratios within one run, of CPU time.

    make bench-quick

Chained stages against one session; early exit against full depth in process; and the server's CPU time of a
request against that of the same answer in process, server and load on a core each. What is compared takes
short turns, one right after the other, for a core's speed changes within seconds; a ratio is the median of
its turns' ratios. Images are those of the bundle's test split below OFFRAMP_DATA, else generated ones, of
which few leave early.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.harness.docs import table
from benchmarks.harness.generator import load
from benchmarks.harness.images import Images, label, test_images
from benchmarks.harness.networks import whole_network
from benchmarks.harness.processes import cpu
from benchmarks.harness.server import halves, machine, serving
from benchmarks.serving import InProcess
from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import CIFAR100
from serving.inference.engine import Engine
from serving.inference.sessions import session_options

# Calls in a turn; the first of them refills the caches and is not counted.
CALLS = 3
CONNECTIONS = 32


@dataclass(frozen=True)
class Ratios:
    """`chained`: stages in a chain with decisions at full depth, by one session with the same exits.
    `decided`: the same with a measure compared at every exit. `early`: early exit by full depth, decoding
    included. `http`: full depth in process by the server's CPU time a request. `generator`: the load
    generator's CPU time by the server's."""

    chained: float
    decided: float
    early: float
    http: float
    generator: float


def measure(bundle: Bundle, images: Images, early: Policy, *, turns: int, seconds: float) -> Ratios:
    """All ratios; `early` is the policy that is compared with full depth, `turns` the interleaved turns in
    process, `seconds` the time under load."""
    engine = Engine(bundle)
    full = bundle.policy.override(mode="ensemble", max_exit=engine.exits)
    # No measure exceeds it, and few reach it.
    never = bundle.policy.override(mode="early_exit", threshold=1.0, max_exit=engine.exits)
    session = ort.InferenceSession(
        whole_network(bundle, exits=True), session_options(ort, 1, "own")
    )
    spec = bundle.manifest.input
    image = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3))
    image = image.astype(np.uint8)
    feed = {session.get_inputs()[0].name: image}
    taken = _milliseconds(
        {
            "one": lambda: session.run(None, feed),
            "chained": lambda: engine.classify(image, full),
            "decided": lambda: engine.classify(image, never),
            "full": InProcess(engine, full, images.files),
            "early": InProcess(engine, early, images.files),
        },
        turns,
    )
    server_cores, load_cores = halves()
    with serving(bundle.path, cores=server_cores, max_queue_ms=10_000) as (port, process):
        options = ("--closed", str(CONNECTIONS), "--path", "/v1/classify?mode=ensemble")
        load(port, images.packed, seconds / 4, *options, cores=load_cores)
        before = cpu(process)
        report = load(port, images.packed, seconds, *options, cores=load_cores)
        spent = cpu(process) - before
    answered = len(report["answers"])
    return Ratios(
        chained=_ratio(taken["chained"], taken["one"]),
        decided=_ratio(taken["decided"], taken["one"]),
        early=_ratio(taken["early"], taken["full"]),
        http=statistics.median(taken["full"]) / (1000 * spent / answered),
        generator=report["cpu_s"] / spent,
    )


def _milliseconds(works: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """CPU time of a call of each of `works` in each of its turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            work()
            began = time.thread_time()
            for _ in range(CALLS - 1):
                work()
            taken[name].append(1000 * (time.thread_time() - began) / (CALLS - 1))
    return taken


def _ratio(of: list[float], to: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the embedded bundle, or those given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, action="append", help="once per bundle")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--turns", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args(argv)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(arguments.bundle or [CIFAR100]):
            bundle = load_bundle(path)
            images = test_images(bundle, arguments.data, Path(folder) / f"{number}.npz")
            ratios = measure(
                bundle,
                images,
                bundle.policy,
                turns=arguments.turns,
                seconds=arguments.seconds,
            )
            rows.append([label(bundle), *(f"{value:.2f}" for value in asdict(ratios).values())])
    head = (
        *("bundle", "chained / one session", "decided at every exit / one session"),
        *("early exit / full depth", "in process / HTTP", "generator / server"),
    )
    print(f"{table(head, rows)}\n\nCPU time, {machine()}")


if __name__ == "__main__":
    main()
