"""What a tuning is asked for, what it has, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from exports.bundle.certificate import Target
from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy, Scaling
from exports.bundle.reader import Table
from exports.tuning.certificate import divide, split_sha256
from exports.tuning.path import Candidate, cross_validated_path
from exports.tuning.search import PolicyEvaluator
from exports.tuning.statistics.answers import AnsweredStats
from exports.tuning.statistics.policy_stats import PolicyStats

Unit = Literal["macs", "ms"]

DEFAULT_DROP = 0.005
DEFAULT_CONFIDENCE = 0.95
INTERVAL_CONFIDENCE = 0.95  # of the intervals shown with estimates


@dataclass(frozen=True)
class Goal:
    """The goal of a tuning; accuracies are shares (0.005 is half a point), costs are in `unit`.

    max_drop: the cheapest policy at most `value` below the ensemble, certified with `confidence` if
    that is given; min_accuracy: the cheapest of at least the accuracy `value`; budget: the most
    accurate whose mean cost is at most `value`.
    """

    kind: Literal["max_drop", "min_accuracy", "budget"] = "max_drop"
    value: float = DEFAULT_DROP
    confidence: float | None = None
    unit: Unit = "macs"

    @property
    def options(self) -> str:
        """The options of `offramp tune` for this goal without a confidence, each after a space."""
        if self.kind == "budget":
            return f" --budget {self.value:.10g}{'ms' if self.unit == 'ms' else ''}"
        option = "--max-accuracy-drop" if self.kind == "max_drop" else "--min-accuracy"
        return f" {option} {100 * self.value:.10g}"

    @property
    def phrase(self) -> str:
        """The goal in words."""
        if self.kind == "budget":
            return f"the most accurate at {self.format_cost(self.value)} a sample"
        if self.kind == "min_accuracy":
            return f"the cheapest that is right on {100 * self.value:g} %"
        suffix = "" if self.confidence is None else f", with {100 * self.confidence:g} % confidence"
        return f"the cheapest at most {100 * self.value:g} points below the ensemble{suffix}"

    def format_cost(self, cost: float) -> str:
        """`cost` with its unit."""
        return f"{cost:.4g} ms" if self.unit == "ms" else f"{cost / 1e6:.4g} M MACs"


@dataclass(frozen=True)
class Default:
    """What is chosen without a goal: at most the share `drop` below the ensemble, certified with `confidence`
    if the samples support that.

    If they support no early exit, the ensemble answers. With `last_alone` (see
    `exports.tuning.select.may_answer_alone`) it must then be measurably better than the last network, which
    otherwise answers alone.
    """

    drop: float = DEFAULT_DROP
    confidence: float = DEFAULT_CONFIDENCE
    last_alone: bool = False

    def goal(self, unit: Unit) -> Goal:
        """The goal that is certified, for costs in `unit`."""
        return Goal(value=self.drop, confidence=self.confidence, unit=unit)


@dataclass(frozen=True)
class PrecisionGoal:
    """A goal for `reject_below`: at least the share `min_precision` of the answers that are given is right,
    certified with `confidence` if that is given."""

    min_precision: float
    confidence: float | None = None

    @property
    def phrase(self) -> str:
        """The goal in words."""
        suffix = "" if self.confidence is None else f", with {100 * self.confidence:g} % confidence"
        return f"at least {100 * self.min_precision:g} % of its answers are right{suffix}"


@dataclass(frozen=True)
class TuningData:
    """A table prepared for the search, whole and divided.

    Without a confidence policies are chosen on the whole. With one they are chosen on the samples in
    `selection` and certified on those in `certification`, which `split_sha256` names. Under the target
    `agreement` the samples have no labels, and an answer counts as correct if it is the ensemble's.
    """

    whole: PolicyEvaluator
    selection: PolicyEvaluator
    certification: PolicyEvaluator
    split_sha256: str
    target: Target
    _paths: dict[tuple[float, ...], tuple[Candidate, ...]] = field(
        default_factory=dict, compare=False
    )

    @classmethod
    def from_table(
        cls,
        table: Table,
        scaling: Scaling,
        source_sha256: str,
        target: Target = "labels",
        chosen_on: int | None = None,
    ) -> TuningData:
        """Divide `table`, read from a file with the hash `source_sha256`, as `divide` does with `chosen_on`.

        `scaling` must not have been fitted on the samples that certify. Raises TuningError if there are fewer
        than two samples.
        """
        if len(table.labels) < 2:
            raise TuningError("There must be at least two samples: to choose on and to check on.")
        whole = PolicyEvaluator.from_table(table, scaling)
        selection, certification = divide(whole.samples, chosen_on)
        split = split_sha256(source_sha256, certification)
        return cls(whole, whole.take(selection), whole.take(certification), split, target)

    @classmethod
    def from_bundle(cls, table: Table, manifest: Manifest) -> TuningData:
        """Divide the calibration table of the bundle with `manifest`. Raises TuningError as `from_table`."""
        entry = manifest.calibration
        return cls.from_table(
            table, manifest.scaling, entry.sha256, entry.target, entry.selection_size
        )

    @property
    def without_certification(self) -> TuningData:
        """The samples to choose on, where nothing may be chosen on those that certify."""
        return replace(self, whole=self.selection, _paths={})

    def candidates(self, costs: Sequence[float]) -> tuple[Candidate, ...]:
        """The cross-validated path of all samples, computed once for the `costs` of the exits."""
        key = tuple(costs)
        if key not in self._paths:
            self._paths[key] = tuple(cross_validated_path(self.whole, costs))
        return self._paths[key]


@dataclass(frozen=True)
class Choice:
    """A policy for `goal`; its answers are judged on samples that it was not chosen on.

    These are those that certify if anything is certified, else all samples, by cross-validation.
    `alternatives` are the policies among which it was chosen, on the same samples, cheapest first.
    `notes` are sentences on what the samples do not support, each with what to type next. `answered` is
    what the policy answers, on such samples, if its `reject_below` was chosen for a PrecisionGoal.
    """

    goal: Goal
    policy: Policy
    stats: PolicyStats
    alternatives: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()
    answered: AnsweredStats | None = None

    @property
    def certified(self) -> bool:
        """Whether the policy was chosen on a part of the samples and certified on the others, for its drop
        or its precision."""
        policy = self.policy
        return policy.certificate is not None or policy.precision_certificate is not None

    @property
    def promise(self) -> str:
        """The certificate's sentence, or the estimate of the drop with its interval."""
        if self.policy.certificate:
            return self.policy.certificate.sentence
        alone = self.policy.mode == "exit"
        low, high = self.stats.drop_interval(INTERVAL_CONFIDENCE)
        if low == high:
            return "The policy runs every image to full depth."
        side = "below" if self.stats.drop >= 0 else "above"
        how = "On" if self.certified or alone else "By cross-validation on"
        return (
            f"{how} {self.stats.samples:,} samples the policy is "
            f"{100 * abs(self.stats.drop):.2f} points {side} the ensemble "
            f"({100 * INTERVAL_CONFIDENCE:g} % interval of the drop: {100 * low:.2f} to {100 * high:.2f})."
        )

    @property
    def rejection(self) -> tuple[str, ...]:
        """Sentences on what is answered, and on what is promised of it; none without a PrecisionGoal."""
        if self.answered is None:
            return ()
        covered, right = (
            f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            for share, (low, high) in (
                (self.answered.coverage, self.answered.coverage_interval(INTERVAL_CONFIDENCE)),
                (
                    self.answered.precision or 0,
                    self.answered.precision_interval(INTERVAL_CONFIDENCE),
                ),
            )
        )
        estimate = (
            f"With reject_below {self.policy.reject_below:g} the policy answers {covered} of "
            f"{self.answered.samples:,} samples, and {right} of these answers are right "
            f"({100 * INTERVAL_CONFIDENCE:g} % intervals in brackets)."
        )
        certificate = self.policy.precision_certificate
        return (estimate,) if certificate is None else (estimate, certificate.sentence)
