"""`offramp tune` without its command line: from a bundle and a goal to a policy and its comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest, read_policy
from exports.tuning.certificate import halves
from exports.tuning.reliability import ConfidenceQuality, confidence_quality
from exports.tuning.request_log import read_requests
from exports.tuning.search import PolicyStats, frontier, full_depth
from exports.tuning.select import Goal, TuningData, Unit, choose


@dataclass(frozen=True)
class Row:
    """A policy with its name in the report, and its results on the certification half."""

    name: str
    policy: Policy
    stats: PolicyStats


@dataclass(frozen=True)
class Tuning:
    """A chosen policy, and the policies it is compared with.

    `costs` holds the cost of leaving at each exit: `macs` always, `ms` if it was measured. The goal's
    unit is the one that was minimised. `single` and `running` are the quality of the confidence of
    every exit and running ensemble, None without labels.
    """

    manifest: Manifest
    source: str
    source_sha256: str
    data: TuningData
    goal: Goal
    costs: dict[Unit, tuple[float, ...]]
    chosen: Row
    previous: Row
    ensemble: Row
    single_exits: tuple[Row, ...]
    frontier: tuple[Row, ...]
    single: tuple[ConfidenceQuality, ...] | None
    running: tuple[ConfidenceQuality, ...] | None

    @property
    def others(self) -> tuple[Row, ...]:
        """The policies that the chosen one is compared with."""
        return (self.previous, self.ensemble, *self.single_exits)

    def speed_up(self, row: Row) -> float:
        """How many times cheaper `row` is than full depth."""
        costs = self.costs[self.goal.unit]
        return costs[-1] / row.stats.mean_cost(costs)


def run_tuning(
    bundle: Path,
    goal: Goal,
    milliseconds: tuple[float, ...] | None = None,
    requests: Path | None = None,
) -> Tuning:
    """Choose a policy for `bundle` that reaches `goal`; nothing is written.

    The policy keeps the `reject_below` of the current one, which is no part of the choice. Samples come
    from the calibration table, or from the request log `requests`. `milliseconds` to leave at each exit
    are required for a goal in ms. Raises BundleError, TuningError.
    """
    manifest = read_manifest(bundle)
    current = read_policy(bundle, manifest)
    if requests is None:
        table = load_table(bundle, manifest)
        split = manifest.calibration.split.replace("_", "-")
        source, sha256 = f"calibration table ({split} split)", manifest.calibration.sha256
        data = TuningData.from_table(table, manifest.scaling, sha256)
    else:
        log = read_requests(requests, manifest)
        table, source, sha256 = log.table, str(requests), log.sha256
        data = TuningData.from_table(table, manifest.scaling, sha256, log.target)
    costs: dict[Unit, tuple[float, ...]] = {
        "macs": tuple(float(entry.macs) for entry in manifest.exits)
    }
    if milliseconds is not None:
        costs["ms"] = milliseconds
    chosen = choose(data, costs[goal.unit], goal)
    chosen = chosen.model_copy(update={"reject_below": current.reject_below})

    def row(name: str, policy: Policy) -> Row:
        return Row(name, policy, data.certification.evaluate(policy))

    exits = len(manifest.exits)
    ensemble = full_depth(exits)
    single = running = None
    if data.target == "labels":
        _, certified_on = halves(len(table.labels))
        single, running = confidence_quality(table.take(certified_on), manifest.scaling)
    return Tuning(
        manifest=manifest,
        source=source,
        source_sha256=sha256,
        data=data,
        goal=goal,
        costs=costs,
        chosen=row("chosen", chosen),
        previous=row("in force before", current),
        ensemble=row("ensemble of all", ensemble),
        single_exits=tuple(
            row(f"exit {k} alone", ensemble.model_copy(update={"mode": "exit", "max_exit": k}))
            for k in range(1, exits + 1)
        ),
        frontier=tuple(
            row("", point.policy) for point in frontier(data.selection, costs[goal.unit])
        ),
        single=single,
        running=running,
    )
