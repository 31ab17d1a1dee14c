"""The simulation against the real server: constant load at full depth, and the runs with gears."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.gears.runs import Setting, load
from benchmarks.gears.simulation import Host, Outcome, Rules, simulate
from benchmarks.harness.images import Images
from exports.bundle.gears.plan import Gear
from exports.bundle.reader import load_bundle
from serving.inference.engine import Engine, decode
from serving.scheduling.costs import measure

MAX_PIXELS = 1 << 26
DECODED = 200
# Shares of full depth's capacity at which the two are compared.
LOADS = (0.5, 0.8, 1.5)
# A refusal by its head alone (docs/design/scheduling.md).
REFUSE_S = 7e-5


def measured_host(setting: Setting, images: Images, capacity: float) -> Host:
    """The host of a server with one worker: stages timed as the server does, decoding on its images. What is
    left of a request's time at `capacity` is the process around the worker."""
    bundle = load_bundle(setting.full)
    engine = Engine(bundle)
    engine.warm_up()
    costs = measure(engine)
    decode_s = float(
        np.median([_timed(file, bundle.manifest.input) for file in images.files[:DECODED]])
    )
    stages = range(1, engine.exits + 1)
    work_s = decode_s + sum(costs.seconds_per_image(stage) for stage in stages)
    return Host(
        costs,
        engine.exits,
        decode_s=decode_s,
        request_s=max(1 / capacity - work_s, 0.0),
        refuse_s=REFUSE_S,
    )


def usable(setting: Setting) -> list[Gear]:
    """The gears that keep the floor."""
    return [gear for gear in setting.plan.gears if gear.accuracy_interval[0] >= setting.floor]


def at_constant_load(
    port: int, setting: Setting, host: Host, images: Images, capacity: float, seconds: float
) -> list[dict[str, Any]]:
    """p50, p99 and refused share of a server of full depth at `port`, measured and simulated with the same
    arrivals."""
    rows = []
    rules = Rules([_full(host)], max_wait_s=setting.max_queue_ms / 1000)
    for share in LOADS:
        parts = [(seconds, share * capacity)]
        report = load(port, images.packed, parts, setting.load_cores)
        found = simulate(host, rules, np.asarray(report["due"]))
        status, latency = np.asarray(report["status"]), np.asarray(report["latency"])
        refused = float((status == 429).mean())
        measured = _summary(latency[status == 200], refused)
        rows.append({"load": share, "measured": measured, "simulated": _simulated(found)})
    return rows


def with_gears(
    setting: Setting, host: Host, report: dict[str, Any], loaded: tuple[float, float]
) -> dict[str, Any]:
    """What the simulation says about the run with gears in `report`: p50, p99 and refused share while the
    load is high, and the accuracy of its gears on the bundle's table."""
    gears = usable(setting)
    rules = Rules(
        [gear.exit_shares for gear in gears],
        max_wait_s=setting.max_queue_ms / 1000,
        target_s=setting.target_ms / 1000,
    )
    found = simulate(host, rules, np.asarray(report["due"]))
    inside = (found.arrived >= loaded[0]) & (found.arrived < loaded[1])
    answered = inside & ~found.refused
    latency = 1000 * found.latency[answered]
    accuracies = np.array([gear.accuracy for gear in gears])
    return {
        **_summary(latency, float(found.refused[inside].mean())),
        "accuracy": float(accuracies[found.gear[answered]].mean()) if answered.any() else None,
        "gears": [[round(at, 1), gear] for at, gear in found.gears],
    }


def _simulated(found: Outcome) -> dict[str, float | None]:
    return _summary(1000 * found.latency[~found.refused], float(found.refused.mean()))


def _summary(latency: Sequence[float] | np.ndarray, refused: float) -> dict[str, float | None]:
    if not len(latency):
        return {"p50": None, "p99": None, "refused": refused}
    p50, p99 = np.percentile(latency, [50, 99]).tolist()
    return {"p50": p50, "p99": p99, "refused": refused}


def _full(host: Host) -> list[float]:
    return [0.0] * (host.stages - 1) + [1.0]


def _timed(file: bytes, spec: Any) -> float:
    began = time.perf_counter()
    decode(file, spec, MAX_PIXELS)
    return time.perf_counter() - began
