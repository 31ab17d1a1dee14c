"""The simulation against the real server: constant load at full depth, and the runs with gears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.gears.runs import Scenario, Setting, load_watched
from benchmarks.gears.simulation import Host, Outcome, Rules, simulate, trace
from benchmarks.harness.images import Images
from exports.bundle.gears.plan import Gear

# Shares of full depth's capacity at which the two are compared.
LOADS = (0.5, 0.8, 1.5)
# How far the simulation may be from a measured run with gears: CPU time an answer in any run, as a ratio; and
# where the server had at least CORE_SHARE of its core, the refused share while the load is high, and p50 and
# p99 then, as a share of what was measured or of the target, whichever is more.
CPU_TOLERANCE = 1.3
REFUSED_TOLERANCE = 0.1
LATENCY_TOLERANCE = 0.35
CORE_SHARE = 0.9


def usable(setting: Setting) -> list[Gear]:
    """The gears that keep the floor."""
    return [gear for gear in setting.plan.gears if gear.accuracy_interval[0] >= setting.floor]


def at_constant_load(
    port: int,
    pid: int,
    setting: Setting,
    host: Host,
    images: Images,
    capacity: float,
    seconds: float,
) -> list[dict[str, Any]]:
    """p50, p99 and refused share of a server of full depth at `port`, process `pid`, measured and simulated
    with the same arrivals."""
    rows = []
    full = [0.0] * (host.stages - 1) + [1.0]
    rules = Rules([full], max_wait_s=setting.max_queue_ms / 1000)
    for share in LOADS:
        parts, span = [(seconds, share * capacity)], (0.0, seconds)
        report = load_watched(port, pid, setting, images, parts, span)
        core_share = report["core_share"]
        found = simulate(replace(host, core_share=core_share), rules, np.asarray(report["due"]))
        status, latency = np.asarray(report["status"]), np.asarray(report["latency"])
        measured = _summary(latency[status == 200], float((status == 429).mean()))
        measured["cpu_ms"] = report["cpu_ms"]
        rows.append(
            {
                "load": share,
                "core_share": core_share,
                "measured": measured,
                "simulated": summary(found, span),
            }
        )
    return rows


def with_gears(
    host: Host,
    gears: Sequence[dict[str, Any]],
    scenario: Scenario,
    core_share: float,
    max_queue_ms: float,
    target_ms: float,
) -> dict[str, Any]:
    """What the simulation says about a run with `gears`, each with its `exit_shares` and `accuracy`: p50, p99
    and refused share while the load is high, the accuracy of the gears used then on the bundle's table, and
    the shifts as (second, gear)."""
    rules = Rules(
        [gear["exit_shares"] for gear in gears], max_queue_ms / 1000, target_s=target_ms / 1000
    )
    # As the load generator draws and reports them.
    arrivals = trace(scenario.parts).round(4)
    found = simulate(replace(host, core_share=core_share), rules, arrivals)
    answered = ~found.refused & _inside(found, scenario.loaded)
    accuracies = np.array([gear["accuracy"] for gear in gears])
    return {
        **summary(found, scenario.loaded),
        "accuracy": float(accuracies[found.gear[answered]].mean()) if answered.any() else None,
        "gears": [[round(at, 1), gear] for at, gear in found.gears],
    }


def differences(run: dict[str, Any], simulated: dict[str, Any], target_ms: float) -> list[str]:
    """The figures of a measured `run` with gears that the simulation is not within the tolerances of."""
    found = []
    if not 1 / CPU_TOLERANCE <= simulated["cpu_ms"] / run["cpu_ms"] <= CPU_TOLERANCE:
        found.append("cpu_ms")
    if run["core_share"] < CORE_SHARE:
        return found
    measured = run["high"]
    if abs(measured["refused"] - simulated["refused"]) > REFUSED_TOLERANCE:
        found.append("refused")
    for name in ("p50", "p99"):
        permitted = LATENCY_TOLERANCE * max(measured[name], target_ms)
        if abs(simulated[name] - measured[name]) > permitted:
            found.append(name)
    return found


def summary(found: Outcome, span: tuple[float, float]) -> dict[str, float | None]:
    """p50 and p99 in milliseconds and refused share of what arrived in `span`, and CPU time over all in
    milliseconds an answer."""
    inside, answered = _inside(found, span), int((~found.refused).sum())
    refused = float(found.refused[inside].mean()) if inside.any() else 0.0
    return {
        **_summary(1000 * found.latency[inside & ~found.refused], refused),
        "cpu_ms": 1000 * found.cpu_s / answered if answered else None,
    }


def _inside(found: Outcome, span: tuple[float, float]) -> np.ndarray:
    return np.asarray((found.arrived >= span[0]) & (found.arrived < span[1]))


def _summary(latency: Sequence[float] | np.ndarray, refused: float) -> dict[str, float | None]:
    if not len(latency):
        return {"p50": None, "p99": None, "refused": refused}
    p50, p99 = np.percentile(latency, [50, 99]).tolist()
    return {"p50": p50, "p99": p99, "refused": refused}
