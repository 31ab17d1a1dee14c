"""CPU milliseconds of every stage on one thread, and answers a second over HTTP."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness.generator import load
from benchmarks.harness.graphs import run_on_one_thread
from benchmarks.harness.server import halves, serving
from benchmarks.serving import closed
from exports.bundle.reader import Bundle
from exports.stage_runner import StageRunner

RUNS = 60
WARM_UP_S = 1.0
REFUSED = "429"


def stage_milliseconds(bundles: Mapping[str, Bundle], image: np.ndarray) -> dict[str, list[float]]:
    """The median CPU time of each stage on `image`, uint8 [1, H, W, 3], on one thread.

    That is the time of a machine without other work, also beside other work. Bundles alternate.
    """
    calls: dict[str, list[Callable[[], object]]] = {}
    for name, bundle in bundles.items():
        inputs = StageRunner(bundle.stages, threads=1).inputs(image)
        calls[name] = [run_on_one_thread(*pair) for pair in zip(bundle.stages, inputs, strict=True)]
    times: dict[str, list[list[float]]] = {
        name: [[] for _ in stages] for name, stages in calls.items()
    }
    for _ in range(RUNS):
        for name, stages in calls.items():
            for call, seen in zip(stages, times[name], strict=True):
                began = time.thread_time()
                call()
                seen.append(1e3 * (time.thread_time() - began))
    return {
        name: [round(statistics.median(seen), 3) for seen in columns]
        for name, columns in times.items()
    }


def mean_milliseconds(stages: Sequence[float], shares: Sequence[float]) -> float:
    """The mean time of an image, of which the shares `shares` leave at each exit."""
    reached = 1 - np.cumsum([0.0, *shares[:-1]])
    return round(float(np.dot(reached, stages)), 2)


def answers_per_second(
    bundles: Mapping[str, Path], packed: Path, seconds: float, rounds: int
) -> dict[str, float]:
    """The median over `rounds` of the answers a second to busy connections, with the server on half of the
    cores and the load on the others. Servers alternate."""
    server_cores, load_cores = halves()
    found: dict[str, list[float]] = {name: [] for name in bundles}
    for _ in range(rounds):
        for name, path in bundles.items():
            with serving(path, cores=server_cores) as (port, _process):
                load(port, packed, WARM_UP_S, *closed(""), cores=load_cores)
                report = load(port, packed, seconds, *closed(""), cores=load_cores)
            answered = len(report["latencies"])
            if report["statuses"].keys() - {"200", REFUSED}:
                raise RuntimeError(f"{name}: requests failed: {report['statuses']}")
            found[name].append(answered / report["seconds"])
            print(f"{name}: {found[name][-1]:.1f} answers/s", flush=True)
    return {name: round(statistics.median(values), 1) for name, values in found.items()}
