"""`offramp tune` without its command line: from a bundle and a goal to a policy and its comparison."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest, read_policy
from exports.tuning.certificate import divide
from exports.tuning.goal import (
    INTERVAL_CONFIDENCE,
    Choice,
    Default,
    Goal,
    PrecisionGoal,
    TuningData,
    Unit,
)
from exports.tuning.proposal.effect import Effect, expected_effect
from exports.tuning.reliability import ConfidenceQuality, confidence_quality
from exports.tuning.requests.log import RequestLog, Traffic, read_requests
from exports.tuning.requests.rerun import run_recorded
from exports.tuning.requests.samples import read_recorded
from exports.tuning.search import full_depth
from exports.tuning.select import (
    MIN_PERMITTED_ERRORS,
    choose,
    choose_default,
    may_answer_alone,
)
from exports.tuning.selective.choose import choose_precise
from exports.tuning.statistics.policy_stats import PolicyStats


@dataclass(frozen=True)
class Row:
    """A policy with its name in the report, and its results on the samples measured."""

    name: str
    policy: Policy
    stats: PolicyStats

    @property
    def drop_interval(self) -> tuple[float, float]:
        """The approximate interval of the drop, of INTERVAL_CONFIDENCE."""
        return self.stats.drop_interval(INTERVAL_CONFIDENCE)


@dataclass(frozen=True)
class Proposal:
    """What a tuning on requests says besides the choice: its expected effect, where the samples come from and
    what is assumed of them (see exports.tuning.requests.log.RequestLog)."""

    effect: Effect
    traffic: Traffic | None
    remarks: tuple[str, ...]
    representative: bool


@dataclass(frozen=True)
class Tuning:
    """A chosen policy, and the policies it is compared with.

    If anything is certified, all results are of the samples that certify. If not, they are of all samples:
    those of the choice and of `frontier`, its alternatives, are cross-validated. `precision` is the goal
    for `reject_below`, None if that was kept.

    `costs` holds the cost of leaving at each exit: `macs` always, `ms` if it was measured. The goal's
    unit is the one that was minimised. `single` and `running` are the quality of the confidence of
    every exit and running ensemble on the samples that certify, None without labels. `proposal` is None for
    the calibration table.
    """

    manifest: Manifest
    source: str
    source_sha256: str
    data: TuningData
    choice: Choice
    precision: PrecisionGoal | None
    costs: dict[Unit, tuple[float, ...]]
    chosen: Row
    previous: Row
    ensemble: Row
    single_exits: tuple[Row, ...]
    frontier: tuple[Row, ...]
    single: tuple[ConfidenceQuality, ...] | None
    running: tuple[ConfidenceQuality, ...] | None
    proposal: Proposal | None = None

    @property
    def goal(self) -> Goal:
        """The goal of the choice."""
        return self.choice.goal

    @property
    def certified(self) -> bool:
        """Whether the choice was made on a part of the samples and certified on the others."""
        return self.choice.certified

    @property
    def others(self) -> tuple[Row, ...]:
        """The policies that the chosen one is compared with."""
        return (self.previous, self.ensemble, *self.single_exits)

    def mean_cost(self, row: Row, unit: Unit) -> float:
        """What an image costs under the policy of `row`, without stages that its answer does not need."""
        costs = row.policy.costs(self.manifest.inputs, self.costs[unit])
        return row.stats.mean_cost(costs)

    def speed_up(self, row: Row) -> float:
        """How many times cheaper `row` is than full depth."""
        unit = self.goal.unit
        return self.costs[unit][-1] / self.mean_cost(row, unit)


def run_tuning(
    bundle: Path,
    goal: Goal | None,
    milliseconds: tuple[float, ...] | None = None,
    requests: Path | None = None,
    precision: PrecisionGoal | None = None,
    *,
    unit: Unit = "macs",
    in_force: Policy | None = None,
) -> Tuning:
    """Choose a policy for `bundle` that reaches `goal`, or the default; nothing is written.

    `reject_below` is chosen for `precision`; without it that of the current policy is kept, which is
    `in_force`, by default the bundle's. Samples come from the calibration table, or from `requests`: a
    request log, or the directory of `offramp serve --record`; then the default is the goal of the current
    policy's certificate, if it has one. `milliseconds` to leave at each exit are required for a goal in ms;
    without a goal, costs in `unit` are minimised. Raises BundleError, TuningError.
    """
    manifest = read_manifest(bundle)
    current = read_policy(bundle, manifest) if in_force is None else in_force
    default = Default()
    log: RequestLog | None = None
    chosen_on: int | None = None
    if requests is None:
        table = load_table(bundle, manifest)
        split = manifest.calibration.split.replace("_", "-")
        source, sha256 = f"calibration table ({split} split)", manifest.calibration.sha256
        target, chosen_on = manifest.calibration.target, manifest.calibration.selection_size
    else:
        if current.certificate is not None:
            permitted = current.certificate.permitted_drop / 100
            default = Default(permitted, current.certificate.confidence)
        needed = _labels_needed(goal, precision, default.drop)
        log = _read_requests(bundle, manifest, requests, needed)
        table, source, sha256, target = log.table, log.source, log.sha256, log.target
    data = TuningData.from_table(table, manifest.scaling, sha256, target, chosen_on)
    last_alone = may_answer_alone(manifest.inputs, target, manifest.scaling)
    default = replace(default, last_alone=last_alone)
    costs: dict[Unit, tuple[float, ...]] = {
        "macs": tuple(float(entry.macs) for entry in manifest.exits)
    }
    if milliseconds is not None:
        costs["ms"] = milliseconds
    unit = unit if goal is None else goal.unit
    command = _command(bundle, requests, unit == "ms")
    if precision is not None:
        choice = choose_precise(data, costs[unit], goal, precision, unit, command, default)
    elif goal is None:
        choice = choose_default(data, costs[unit], default, unit, command)
        choice = _keep_rejection(choice, current, command)
    else:
        choice = choose(data, costs[unit], goal, command)
        choice = _keep_rejection(choice, current, command + goal.options)
    proposal = None
    if log is not None:
        effect = expected_effect(data, choice, current, costs, manifest.inputs)
        proposal = Proposal(effect, log.traffic, log.remarks, log.representative)
    measured = data.certification if choice.certified else data.whole

    def row(name: str, policy: Policy) -> Row:
        return Row(name, policy, measured.evaluate(policy))

    exits = len(manifest.exits)
    ensemble = full_depth(exits)
    single = running = None
    if data.target == "labels":
        _, certified_on = divide(len(table.labels), data.selection.samples)
        single, running = confidence_quality(table.take(certified_on), manifest.scaling)
    return Tuning(
        manifest=manifest,
        source=source,
        source_sha256=sha256,
        data=data,
        choice=choice,
        precision=precision,
        costs=costs,
        chosen=Row("chosen", choice.policy, choice.stats),
        previous=row("in force before", current),
        ensemble=row("ensemble of all", ensemble),
        single_exits=tuple(
            row(f"exit {k} alone", ensemble.model_copy(update={"mode": "exit", "max_exit": k}))
            for k in range(1, exits + 1)
        ),
        frontier=tuple(
            Row("", candidate.policy, candidate.stats) for candidate in choice.alternatives
        ),
        single=single,
        running=running,
        proposal=proposal,
    )


def _read_requests(bundle: Path, manifest: Manifest, requests: Path, needed: int) -> RequestLog:
    if requests.is_dir():
        return read_recorded(requests, manifest, needed, partial(run_recorded, bundle))
    return read_requests(requests, manifest)


def _labels_needed(goal: Goal | None, precision: PrecisionGoal | None, drop: float) -> int:
    """How many labelled samples can support the goal; `drop` is permitted without one. An accuracy or a
    precision needs labels, however few, and a budget is met with any."""
    if precision is not None or (goal is not None and goal.kind != "max_drop"):
        return 1
    permitted = drop if goal is None else goal.value
    return math.ceil(MIN_PERMITTED_ERRORS / permitted - 1e-9) if permitted else 1


def _keep_rejection(choice: Choice, current: Policy, command: str) -> Choice:
    """`choice` with the `reject_below` of the `current` policy, whose precision is promised only for the
    thresholds that it was certified with."""
    policy = choice.policy.model_copy(update={"reject_below": current.reject_below})
    promise = current.precision_certificate
    if promise is None:
        return replace(choice, policy=policy)
    unchanged = {
        "certificate": current.certificate,
        "precision_certificate": promise,
    }
    if policy.model_copy(update=unchanged) == current:
        kept = policy.model_copy(update={"precision_certificate": promise})
        return replace(choice, policy=kept)
    goal = f"--min-precision {promise.min_precision:g} --confidence {promise.confidence:g}"
    note = (
        f"reject_below is still {promise.reject_below:g}, but the precision was certified for other "
        f"thresholds and is no longer promised; `{command} {goal}` certifies it again, if possible."
    )
    return replace(choice, policy=policy, notes=(*choice.notes, note))


def _command(bundle: Path, requests: Path | None, in_milliseconds: bool) -> str:
    """The command of a tuning like this one, to which a goal can be added."""
    words = ["offramp", "tune", str(bundle)]
    if requests is not None:
        words += ["--from", str(requests)]
    if in_milliseconds:
        words += ["--cost", "ms"]
    return shlex.join(words)
