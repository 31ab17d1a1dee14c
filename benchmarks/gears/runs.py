"""Real runs: a server with or without gears, and load that steps up, on a core each."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.gears.core import watched_core
from benchmarks.harness.generator import load as closed_load
from benchmarks.harness.images import Images
from benchmarks.harness.server import ROOT, pinned, serving
from exports.bundle.gears.plan import GearPlan, write_gears
from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest
from exports.bundle.writing import write_policy
from exports.tuning.gears.choose import plan_gears
from exports.tuning.goal import TuningData
from exports.tuning.search import never_early

# What is compared: gears from full depth down, the bundle's own policy, and full depth.
MODES = ("gears", "fixed policy", "shedding")
CONNECTIONS = "64"
BEFORE_S, STEP_S, SPIKE_S, AFTER_S = 5.0, 20.0, 2.0, 25.0
# The rate before and after, as a share of full depth's capacity.
USUAL = 0.5


@dataclass(frozen=True)
class Scenario:
    """Load of `factor` times full depth's capacity for `seconds`, between usual load."""

    name: str
    factor: float
    parts: tuple[tuple[float, float], ...]

    @property
    def loaded(self) -> tuple[float, float]:
        """When the high load begins and ends."""
        begins = self.parts[0][0]
        return begins, begins + self.parts[1][0]


@dataclass(frozen=True)
class Setting:
    """Two bundles that differ by their policy, `full` with full depth and a plan, `own` with the original's;
    their plan, and the settings of every server."""

    full: Path
    own: Path
    plan: GearPlan
    target_ms: float
    floor: float
    max_queue_ms: float
    server_cores: Sequence[int]
    load_cores: Sequence[int]

    def server(self, mode: str) -> Any:
        """A server for `mode`, as `serving` yields it."""
        settings: dict[str, object] = {"workers": 1, "max_queue_ms": self.max_queue_ms}
        if mode == "gears":
            settings |= {"target_p99_ms": self.target_ms, "accuracy_floor": self.floor}
        bundle = self.own if mode == "fixed policy" else self.full
        return serving(bundle, cores=self.server_cores, **settings)


def prepare(bundle: Path, folder: Path) -> tuple[Path, Path, GearPlan]:
    """Copies of `bundle` in `folder` with full depth and with its own policy, and its plan of gears."""
    full, own = (Path(shutil.copytree(bundle, folder / name)) for name in ("full", "own"))
    manifest = read_manifest(full)
    data = TuningData.from_bundle(load_table(full, manifest), manifest)
    plan = plan_gears(data, manifest)
    write_gears(full, plan)
    write_policy(full, full_depth(len(manifest.exits)))
    return full, own, plan


def full_depth(exits: int) -> Policy:
    """The policy in force of the runs with gears and of shedding."""
    return never_early(exits)


def scenarios(capacity: float, factors: Sequence[float], shorter: float) -> list[Scenario]:
    """A step and a spike of every factor; all times are multiplied by `shorter`."""
    found = []
    for factor in factors:
        for name, seconds in (("step", STEP_S), ("spike", SPIKE_S)):
            usual = USUAL * capacity
            parts = ((BEFORE_S, usual), (seconds, factor * capacity), (AFTER_S, usual))
            scaled = tuple((shorter * length, rate) for length, rate in parts)
            found.append(Scenario(name, factor, scaled))
    return found


def busy_connections(
    port: int, setting: Setting, images: Images, seconds: float
) -> tuple[int, float]:
    """The answers of the server at `port` with busy connections, and the seconds that they took."""
    options = ("--closed", CONNECTIONS)
    busy = closed_load(port, images.packed, seconds, *options, cores=setting.load_cores)
    return len(busy["latencies"]), float(busy["seconds"])


def run_scenario(setting: Setting, mode: str, scenario: Scenario, images: Images) -> dict[str, Any]:
    """The report of the load, with the `core_share` of the server while it is high, and the last `shifts` of
    gears: time, gear before and after, reason."""
    with setting.server(mode) as (port, pid):
        report = load_watched(port, pid, setting, images, scenario.parts, scenario.loaded)
        if mode == "gears":
            name = read_manifest(setting.full).name
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/v1/models/{name}/gears", timeout=10
            ) as answer:
                status = orjson.loads(answer.read())["status"]
            report["shifts"] = [
                [shift["at"], shift["before"], shift["after"], shift["reason"]]
                for shift in reversed(status["shifts"])
            ]
    return report


def load_watched(
    port: int,
    pid: int,
    setting: Setting,
    images: Images,
    parts: Sequence[tuple[float, float]],
    span: tuple[float, float],
) -> dict[str, Any]:
    """The report of the load on the server at `port`, process `pid`, with its `core_share` in `span`, and its
    CPU time over all in milliseconds an answer, `cpu_ms`, None without an answer."""
    with watched_core(pid, setting.server_cores) as core:
        report = load(port, images.packed, parts, setting.load_cores)
    begin, end = (report["began"] + second for second in span)
    used_s, answered = core.used_s(core.began, core.ended), report["status"].count(200)
    return {
        **report,
        "core_share": round(core.share(begin, end), 3),
        "cpu_ms": round(1000 * used_s / answered, 3) if answered else None,
    }


def load(
    port: int, packed: Path, parts: Sequence[tuple[float, float]], cores: Sequence[int]
) -> dict[str, Any]:
    """The report of `benchmarks.gears.load`, on `cores` alone if there are any."""
    command = [sys.executable, "-m", "benchmarks.gears.load", "--port", str(port)]
    command += ["--images", str(packed), "--parts", *(f"{s}:{rate}" for s, rate in parts)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, cwd=ROOT, preexec_fn=pinned(cores)
    )
    report: dict[str, Any] = orjson.loads(done.stdout)
    return report


def figures(
    report: dict[str, Any], labels: Sequence[int] | None, begin: float, end: float
) -> dict[str, Any]:
    """Refused share, p50 and p99 in milliseconds and accuracy in percent of the requests due from `begin` to
    `end`; None where there is nothing to judge."""
    due = np.asarray(report["due"])
    inside = (due >= begin) & (due < end)
    status = np.asarray(report["status"])[inside]
    answered = status == 200
    latency = np.asarray(report["latency"])[inside][answered]
    accuracy = None
    if labels is not None and answered.any():
        right = np.asarray(labels)[np.asarray(report["image"])] == np.asarray(report["index"])
        accuracy = 100 * float(right[inside][answered].mean())
    return {
        "offered": len(status),
        "refused": float((status == 429).mean()) if len(status) else None,
        "failed": int(((status != 200) & (status != 429)).sum()),
        "p50": float(np.percentile(latency, 50)) if len(latency) else None,
        "p99": float(np.percentile(latency, 99)) if len(latency) else None,
        "accuracy": accuracy,
    }
