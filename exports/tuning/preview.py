"""The effect of policies, computed on a bundle's calibration table; no model is run.

A policy that was chosen on these samples looks better on them than it is. Where the table shows that it
was, its drop is estimated on samples that it was not chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Combine, Measure, Policy
from exports.bundle.reader import Table, load_table
from exports.bundle.schema_types import Interval
from exports.tuning.goal import INTERVAL_CONFIDENCE, TuningData
from exports.tuning.search import NEVER, PolicyEvaluator
from exports.tuning.selective.curve import (
    CURVE_POINTS,
    DECIMALS,
    Coverage,
    draw_coverage,
    percent,
)
from exports.tuning.statistics.policy_stats import PolicyStats

# The samples of an estimate: the whole table, those of it that certify the policy, or the whole table by
# cross-validation of the search that finds the policy.
Estimate = Literal["table", "certification", "cross_validated"]


@dataclass(frozen=True)
class Preview:
    """A policy on the calibration table: accuracy in percent, drop in points below full depth with its
    approximate 95 % interval, mean cost in multiply-accumulates and milliseconds, and the share of samples
    leaving at each exit.

    `estimate` says on which samples of the table the drop was measured, `samples` how many these are; the
    accuracy is full depth's on the whole table less the drop. `mean_ms` is the stages' time on this host,
    one image at a time; None if it was not measured.
    """

    samples: int
    estimate: Estimate
    accuracy: float
    drop: float
    drop_interval: Interval
    mean_macs: float
    mean_ms: float | None
    exit_shares: list[float]


@dataclass(frozen=True)
class Point:
    """One threshold shared by all exits, and its effect, as in Preview."""

    threshold: float
    accuracy: float
    drop_interval: Interval
    mean_macs: float
    mean_ms: float | None
    exit_shares: list[float]


@dataclass(frozen=True)
class Tradeoff:
    """The cost and accuracy of every shared threshold, cheapest first, with those of each exit alone,
    full depth (the ensemble of all exits), and the current policy."""

    model: str
    samples: int
    split: str
    macs: list[int]
    ms: list[float] | None
    exit_accuracy: list[float]
    full_depth_accuracy: float
    measure: Measure
    combine: Combine
    points: list[Point]
    policy: Preview


class PolicyPreview:
    """Previews policies on the calibration table of one loaded bundle.

    The table is read on first use. `exit_ms` are the measured milliseconds to leave at each exit, if
    any. Methods take milliseconds to seconds. They raise BundleError if the table is no longer the one
    in the manifest.
    """

    def __init__(
        self, path: Path, manifest: Manifest, exit_ms: Sequence[float] | None = None
    ) -> None:
        self._path = path
        self._manifest = manifest
        self._exit_ms = None if exit_ms is None else list(exit_ms)
        self._macs = [entry.macs for entry in manifest.exits]
        self._curves: dict[tuple[Measure, Combine], list[Point]] = {}

    def timed(self, exit_ms: Sequence[float]) -> PolicyPreview:
        """The same with measured times."""
        return PolicyPreview(self._path, self._manifest, [round(ms, DECIMALS) for ms in exit_ms])

    def preview(self, policy: Policy) -> Preview:
        """The effect of `policy`."""
        stats, estimate = self._out_of_sample(policy)
        point = self._point(0.0, policy, stats)
        return Preview(
            stats.samples,
            estimate,
            point.accuracy,
            round(self._full_depth - point.accuracy, DECIMALS),
            point.drop_interval,
            point.mean_macs,
            point.mean_ms,
            point.exit_shares,
        )

    def tradeoff(self, policy: Policy, measure: Measure, combine: Combine) -> Tradeoff:
        """The curve of one shared threshold under `measure` and `combine`, with `policy` to compare."""
        return Tradeoff(
            model=self._manifest.name,
            samples=self._evaluator.samples,
            split=self._manifest.calibration.split,
            macs=self._macs,
            ms=self._exit_ms,
            exit_accuracy=[
                percent(correct.mean()) for correct in self._evaluator.correct["single"]
            ],
            full_depth_accuracy=self._full_depth,
            measure=measure,
            combine=combine,
            points=self._curve(measure, combine),
            policy=self.preview(policy),
        )

    @property
    def tuning_data(self) -> TuningData:
        """The table, divided into what policies are chosen and certified on."""
        return self._data

    def coverage(self, policy: Policy) -> Coverage:
        """What `policy` answers at its `reject_below`, and at every other one."""
        promise = policy.certificate or policy.precision_certificate
        if promise is not None and promise.split_sha256 == self._data.split_sha256:
            return draw_coverage(self._data.certification, policy, "certification")
        return draw_coverage(self._evaluator, policy, "table")

    @cached_property
    def _table(self) -> Table:
        return load_table(self._path, self._manifest)

    @cached_property
    def _evaluator(self) -> PolicyEvaluator:
        return PolicyEvaluator.from_table(self._table, self._manifest.scaling)

    @cached_property
    def _data(self) -> TuningData:
        return TuningData.from_bundle(self._table, self._manifest)

    @property
    def _full_depth(self) -> float:
        return percent(self._evaluator.ensemble_correct.mean())

    def _out_of_sample(self, policy: Policy) -> tuple[PolicyStats, Estimate]:
        """The results of `policy` on samples that it was not chosen on, as far as the table knows."""
        certificate = policy.certificate or policy.precision_certificate
        if certificate is not None and certificate.split_sha256 == self._data.split_sha256:
            return self._data.certification.evaluate(policy), "certification"
        # Policies of one shared threshold are no result of the search.
        if policy.mode == "early_exit" and len(set(policy.thresholds)) > 1:
            for candidate in self._data.candidates(self._macs):
                if candidate.policy == policy.without_rejection:
                    return candidate.stats, "cross_validated"
        return self._evaluator.evaluate(policy), "table"

    def _point(self, threshold: float, policy: Policy, estimate: PolicyStats) -> Point:
        """The costs of `policy` on the whole table, with the drop of `estimate`."""
        stats = self._evaluator.evaluate(policy)
        ms = self._exit_ms
        ensemble = float(self._evaluator.ensemble_correct.mean())
        low, high = estimate.drop_interval(INTERVAL_CONFIDENCE)
        inputs = self._manifest.inputs
        return Point(
            threshold,
            percent(ensemble - estimate.drop),
            (percent(low), percent(high)),
            round(stats.mean_cost(policy.costs(inputs, self._macs)), 1),
            None if ms is None else round(stats.mean_cost(policy.costs(inputs, ms)), DECIMALS),
            [round(share, 6) for share in stats.exit_shares],
        )

    def _curve(self, measure: Measure, combine: Combine) -> list[Point]:
        key = (measure, combine)
        if key not in self._curves:
            exits = len(self._macs)
            points = []
            for threshold in self._thresholds(measure, combine):
                shared = Policy(
                    measure=measure,
                    combine=combine,
                    thresholds=(threshold,) * (exits - 1),
                    max_exit=exits,
                )
                points.append(self._point(threshold, shared, self._evaluator.evaluate(shared)))
            self._curves[key] = points
        return self._curves[key]

    def _thresholds(self, measure: Measure, combine: Combine) -> list[float]:
        """Even quantiles of the confidences at all exits but the last, with 0 and NEVER."""
        confidence = self._evaluator.confidence[measure, combine][:-1]
        if not len(confidence):
            return [NEVER]
        quantiles = np.quantile(confidence, np.linspace(0, 1, CURVE_POINTS - 2))
        return [0.0, *sorted({round(float(value), 4) for value in quantiles} - {0.0}), NEVER]
