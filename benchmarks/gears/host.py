"""What work costs on this host, measured before the runs that the simulation is compared with.

No figure here is chosen so that the simulation agrees with a run:

- `costs` is the server's own table of a stage's seconds by batch size, measured on the server's core.
- `decode_s` is the CPU time of decoding a file there.
- `request_s` is the CPU time of all threads but the worker's, an answer, with busy connections.
- `stage_factor` is the worker's CPU time without decoding in that run, by what the table says of its batches.
  Beside a busy event loop a stage takes longer than alone.
- `refuse_s` is the CPU time of a refusal at three times the capacity.
- `core_share` is what other processes left of the server's core, in every run again.
"""

from __future__ import annotations

import time
import urllib.request
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.gears.core import watched_core
from benchmarks.gears.runs import Setting, busy_connections, load
from benchmarks.gears.simulation import Host
from benchmarks.harness.images import Images
from benchmarks.harness.processes import thread_cpu
from benchmarks.harness.server import on_cores
from exports.bundle.manifest import InputSpec
from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine, decode
from serving.scheduling.costs import BATCH_SIZES, CostTable, measure

MAX_PIXELS = 1 << 26
DECODED = 200
# Times the capacity at which the cost of a refusal is measured.
OVERLOAD = 3.0
MIN_OVERLOAD_S = 1.0


@dataclass(frozen=True)
class Spent:
    """A server's CPU seconds so far: of the worker, and of all other threads."""

    worker_s: float
    around_s: float

    @classmethod
    def so_far(cls, pid: int) -> Spent:
        """Of the process `pid`, which has one worker: the busiest thread but the first."""
        threads = thread_cpu(pid)
        worker = max(seconds for thread, seconds in threads.items() if thread != pid)
        return cls(worker, sum(threads.values()) - worker)

    def since(self, before: Spent) -> Spent:
        """What was spent since `before`."""
        return Spent(self.worker_s - before.worker_s, self.around_s - before.around_s)


def measure_host(
    port: int, pid: int, setting: Setting, images: Images, seconds: float
) -> tuple[Host, float]:
    """The host of the server of full depth at `port`, process `pid`, and its answers a second with busy
    connections."""
    bundle = load_bundle(setting.full)
    # The server is idle meanwhile.
    with on_cores(setting.server_cores):
        engine = Engine(bundle)
        engine.warm_up()
        costs = measure(engine)
        files = images.files[:DECODED]
        decode_s = float(np.median([_decode_s(file, bundle.manifest.input) for file in files]))
    before, batches_before = Spent.so_far(pid), _batches(port, engine.exits)
    with watched_core(pid, setting.server_cores) as core:
        answers, lasted = busy_connections(port, setting, images, seconds)
    spent = Spent.so_far(pid).since(before)
    predicted = sum(
        _seconds(costs, stage, count - count_before, size - size_before)
        for stage, ((count, size), (count_before, size_before)) in enumerate(
            zip(_batches(port, engine.exits), batches_before, strict=True), 1
        )
    )
    host = Host(
        costs,
        engine.exits,
        decode_s=decode_s,
        request_s=spent.around_s / answers,
        stage_factor=max(spent.worker_s - decode_s * answers, 0.0) / predicted,
        core_share=core.share(core.began, core.ended),
    )
    capacity = answers / lasted
    refuse_s = _refuse_s(port, pid, setting, images, host, capacity, seconds / 2)
    return replace(host, refuse_s=refuse_s), capacity


def _refuse_s(
    port: int,
    pid: int,
    setting: Setting,
    images: Images,
    host: Host,
    capacity: float,
    seconds: float,
) -> float:
    """CPU seconds of a refusal; that of the host if nothing was refused."""
    before = Spent.so_far(pid)
    parts = [(max(seconds, MIN_OVERLOAD_S), OVERLOAD * capacity)]
    report = load(port, images.packed, parts, setting.load_cores)
    around_s = Spent.so_far(pid).since(before).around_s
    status = np.asarray(report["status"])
    refused, answered = int((status == 429).sum()), int((status == 200).sum())
    if not refused:
        return host.refuse_s
    return max(around_s - host.request_s * answered, 0.0) / refused


def as_json(host: Host) -> dict[str, Any]:
    """`host` as JSON; `from_json` reads it."""
    stages = range(1, host.stages + 1)
    return {
        "costs_s": [
            {str(size): host.costs.seconds(k, size) for size in BATCH_SIZES} for k in stages
        ],
        "workers": host.workers,
        "decode_s": host.decode_s,
        "request_s": host.request_s,
        "refuse_s": host.refuse_s,
        "stage_factor": host.stage_factor,
        "core_share": host.core_share,
    }


def from_json(content: dict[str, Any]) -> Host:
    """The host that `as_json` wrote."""
    costs_s = [{int(size): s for size, s in stage.items()} for stage in content["costs_s"]]
    figures = {name: value for name, value in content.items() if name != "costs_s"}
    return Host(CostTable(costs_s), len(costs_s), **figures)


def _batches(port: int, stages: int) -> list[tuple[float, float]]:
    """Batches and images so far of every stage of the server at `port`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = dict.fromkeys(
        ((stage, end) for stage in range(1, stages + 1) for end in ("_count", "_sum")), 0.0
    )
    name = "offramp_stage_batch_size"
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name == name else ():
            key = int(sample.labels["stage"]), sample.name.removeprefix(name)
            if key in found:
                found[key] = sample.value
    return [(found[stage, "_count"], found[stage, "_sum"]) for stage in range(1, stages + 1)]


def _seconds(costs: CostTable, stage: int, batches: float, images: float) -> float:
    """What the table says of `batches` of the mean size."""
    if not batches:
        return 0.0
    sizes = [0, *BATCH_SIZES]
    seconds = [0.0, *(costs.seconds(stage, size) for size in BATCH_SIZES)]
    return batches * float(np.interp(images / batches, sizes, seconds))


def _decode_s(file: bytes, spec: InputSpec) -> float:
    began = time.thread_time()
    decode(file, spec, MAX_PIXELS)
    return time.thread_time() - began
