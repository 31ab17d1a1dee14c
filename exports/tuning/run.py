"""What `offramp tune` does: from a bundle and a goal to a policy, with all there is to say about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import Table, load_table, read_manifest, read_policy
from exports.tuning.certificate import halves
from exports.tuning.reliability import Quality, qualities
from exports.tuning.request_log import read_requests
from exports.tuning.search import PolicyStats, frontier, full_depth
from exports.tuning.select import Data, Goal, Unit, choose


@dataclass(frozen=True)
class Row:
    """A policy with its name in the table, and what it does on the second half."""

    name: str
    policy: Policy
    stats: PolicyStats


@dataclass(frozen=True)
class Tuning:
    """A chosen policy, and what it was chosen from.

    `costs` holds the cost of leaving at each exit: `macs` always, `ms` if it was measured; the goal's
    unit is the one that was saved. `single` and `running` are the exits' calibration, None without labels.
    """

    manifest: Manifest
    source: str
    source_sha256: str
    data: Data
    goal: Goal
    costs: dict[Unit, tuple[float, ...]]
    chosen: Row
    others: tuple[Row, ...]
    frontier: tuple[Row, ...]
    single: tuple[Quality, ...] | None
    running: tuple[Quality, ...] | None

    def speed_up(self, row: Row) -> float:
        """How many times cheaper `row` is than full depth."""
        costs = self.costs[self.goal.unit]
        return costs[-1] / row.stats.mean_cost(costs)


def tune(
    bundle: Path,
    goal: Goal,
    milliseconds: tuple[float, ...] | None = None,
    requests: Path | None = None,
) -> Tuning:
    """Choose a policy for `bundle` that reaches `goal`; nothing is written.

    Samples come from the calibration table, or from the log `requests`. `milliseconds` to leave at each
    exit are needed for a goal in ms. Raises BundleError, TuningError.
    """
    manifest = read_manifest(bundle)
    in_force = read_policy(bundle, manifest)
    if requests is None:
        table: Table = load_table(bundle, manifest)
        split = manifest.calibration.split.replace("_", "-")
        source, sha256 = f"calibration table ({split} split)", manifest.calibration.sha256
        data = Data.of(table, manifest.scaling, sha256)
    else:
        log = read_requests(requests, manifest)
        table, source, sha256 = log.table, str(requests), log.sha256
        data = Data.of(table, manifest.scaling, sha256, log.target)
    costs: dict[Unit, tuple[float, ...]] = {
        "macs": tuple(float(entry.macs) for entry in manifest.exits)
    }
    if milliseconds is not None:
        costs["ms"] = milliseconds
    policy = choose(data, costs[goal.unit], goal)

    def row(name: str, policy: Policy) -> Row:
        return Row(name, policy, data.second.evaluate(policy))

    exits = len(manifest.exits)
    whole = full_depth(exits)
    alone = [
        row(f"exit {k} alone", whole.model_copy(update={"mode": "exit", "max_exit": k}))
        for k in range(1, exits + 1)
    ]
    single = running = None
    if data.target == "labels":
        single, running = qualities(table.take(halves(len(table.labels))[1]), manifest.scaling)
    return Tuning(
        manifest=manifest,
        source=source,
        source_sha256=sha256,
        data=data,
        goal=goal,
        costs=costs,
        chosen=row("chosen", policy),
        others=(row("in force before", in_force), row("ensemble of all", whole), *alone),
        frontier=tuple(row("", point.policy) for point in frontier(data.first, costs[goal.unit])),
        single=single,
        running=running,
    )
