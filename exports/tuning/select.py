"""From a goal to a policy: thresholds are chosen on one half of a table and certified on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from exports.bundle.errors import TuningError
from exports.bundle.policy import Certificate, Policy, Scaling, Target
from exports.bundle.reader import Table
from exports.tuning.certificate import (
    drop_bound,
    drop_holds,
    halves,
    proportion_bound,
    samples_needed,
    split_sha256,
)
from exports.tuning.search import FrontierPoint, PolicyEvaluator, PolicyStats, frontier

Unit = Literal["macs", "ms"]

DEFAULT_DROP = 0.005
DEFAULT_CONFIDENCE = 0.95
# Standard errors added to a drop before it is certified: 1.6 for the limit itself, as many for luck.
CAUTION = 3.0
# The same for a default policy that cannot be certified.
UNCERTIFIED_CAUTION = 1.0
# A policy counts as cheaper than full depth if it is so by more than rounding.
CHEAPER_THAN_FULL_DEPTH = 1 - 1e-9


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


CERTIFIED_DEFAULT = Goal(confidence=DEFAULT_CONFIDENCE)


@dataclass(frozen=True)
class TuningData:
    """A table prepared for the search, whole and in halves: policies are chosen on the samples in
    `selection` and certified on those in `certification`.

    `split_sha256` names the samples certified on. Under the target `agreement` the samples have no
    labels, and an answer counts as correct if it is the ensemble's.
    """

    whole: PolicyEvaluator
    selection: PolicyEvaluator
    certification: PolicyEvaluator
    split_sha256: str
    target: Target

    @classmethod
    def from_table(
        cls, table: Table, scaling: Scaling, source_sha256: str, target: Target = "labels"
    ) -> TuningData:
        """Halve `table`, read from a file with the hash `source_sha256`.

        Raises TuningError if it has fewer than two samples.
        """
        if len(table.labels) < 2:
            raise TuningError("There must be at least two samples: to choose on and to check on.")
        whole = PolicyEvaluator.from_table(table, scaling)
        chosen_on, certified_on = halves(whole.samples)
        split = split_sha256(source_sha256, certified_on)
        return cls(whole, whole.take(chosen_on), whole.take(certified_on), split, target)


def choose(data: TuningData, costs: Sequence[float], goal: Goal) -> Policy:
    """The policy that reaches `goal`, chosen on the selection half of `data`.

    `costs` [K] is the cost of leaving at each exit. With a confidence the policy carries a certificate,
    proven on the other half. Raises TuningError, which says what is possible, if no policy reaches it.
    """
    if goal.confidence is not None:
        return _choose_certified(data, costs, goal.value, goal.confidence)
    points = frontier(data.selection, costs)
    ensemble = float(data.selection.ensemble_correct.mean())
    if goal.kind == "budget":
        affordable = [point for point in points if point.cost <= goal.value]
        if not affordable:
            raise TuningError(
                f"No policy costs {goal.format_cost(goal.value)} a sample or less; "
                f"the cheapest costs {goal.format_cost(points[0].cost)}."
            )
        return affordable[-1].policy
    permitted = goal.value if goal.kind == "max_drop" else ensemble - goal.value
    for point in points:
        if point.drop <= permitted + 1e-12:
            return point.policy
    best = ensemble - points[-1].drop
    raise TuningError(
        f"No policy is right on {100 * goal.value:g} % of the samples; the best is on {100 * best:.2f} %."
    )


def default_policy(
    table: Table, scaling: Scaling, costs: Sequence[float], source_sha256: str
) -> tuple[Policy, str]:
    """The policy a bundle is exported with, and a sentence on what it promises.

    It is certified if the table supports that. Otherwise it is the cheapest that loses at most
    DEFAULT_DROP on the half it was chosen on, where samples that it alone gets right do not make up for
    those it loses: on few samples they would by luck. `scaling` must not have been fitted on the other
    half.
    """
    data = TuningData.from_table(table, scaling, source_sha256)
    try:
        policy = choose(data, costs, CERTIFIED_DEFAULT)
    except TuningError as error:
        return _choose_uncertified(data, costs), f"The default policy is not certified: {error}"
    assert policy.certificate is not None
    return policy, policy.certificate.sentence


def verify_certificate(policy: Policy, data: TuningData) -> bool | None:
    """Whether the certificate of `policy` follows from `data`; None if it is of other samples, or if
    there is no certificate."""
    certificate = policy.certificate
    if certificate is None or certificate.split_sha256 != data.split_sha256:
        return None
    permitted, confidence = certificate.permitted_drop / 100, certificate.confidence
    stats = data.certification.evaluate(policy)
    return _holds(stats, data, permitted, confidence) and certificate == _certificate(
        stats, data, permitted, confidence
    )


def _choose_certified(
    data: TuningData, costs: Sequence[float], permitted: float, confidence: float
) -> Policy:
    """Fixed-sequence testing: from the safest policy to the cheapest, until one fails.

    Learn then Test (Angelopoulos et al. 2021): since the order is fixed without the certification
    half, the probability that any accepted policy is worse than permitted is at most 1 - confidence,
    with no correction for the number of tests.
    """
    points = frontier(data.selection, costs, CAUTION)
    safest_first = [p for p in points if p.cost < CHEAPER_THAN_FULL_DEPTH * costs[-1]][::-1]
    accepted: tuple[Policy, PolicyStats] | None = None
    for point in safest_first:
        stats = data.certification.evaluate(point.policy)
        if not _holds(stats, data, permitted, confidence):
            break
        accepted = point.policy, stats
    if accepted is None:
        raise TuningError(_why_not_certified(safest_first, data, permitted, confidence))
    policy, stats = accepted
    certificate = _certificate(stats, data, permitted, confidence)
    return policy.model_copy(update={"certificate": certificate})


def _choose_uncertified(data: TuningData, costs: Sequence[float]) -> Policy:
    for point in frontier(data.selection, costs, UNCERTIFIED_CAUTION):
        stats = data.selection.evaluate(point.policy)
        if stats.losses <= DEFAULT_DROP * stats.samples:
            return point.policy
    return choose(data, costs, Goal())


def _holds(stats: PolicyStats, data: TuningData, permitted: float, confidence: float) -> bool:
    if data.target == "agreement":
        return proportion_bound(stats.losses, stats.samples, confidence) <= permitted
    return drop_holds(stats.losses, stats.gains, stats.samples, permitted, confidence)


def _certificate(
    stats: PolicyStats, data: TuningData, permitted: float, confidence: float
) -> Certificate:
    if data.target == "agreement":
        bound = proportion_bound(stats.losses, stats.samples, confidence)
    else:
        bound = drop_bound(stats.losses, stats.gains, stats.samples, confidence)
    permitted_points = round(100 * permitted, 6)
    return Certificate(
        method="clopper-pearson" if data.target == "agreement" else "exact-trinomial",
        permitted_drop=permitted_points,
        confidence=confidence,
        bound=min(math.ceil(1e6 * bound) / 1e4, permitted_points),
        chosen_on=data.selection.samples,
        samples=stats.samples,
        split_sha256=data.split_sha256,
        target=data.target,
    )


def _why_not_certified(
    safest_first: list[FrontierPoint], data: TuningData, permitted: float, confidence: float
) -> str:
    """Why no policy was certified, and how many samples would be enough."""
    if not safest_first:
        return "The network has no exit before the last, so every policy is the ensemble."
    reason = (
        f"No policy cheaper than the ensemble can be promised to lose at most {100 * permitted:g} "
        f"points with {100 * confidence:g} % confidence from {data.whole.samples:,} samples"
    )
    # The safest policy, judged by the half that refused it, else by all samples.
    for evaluator in (data.certification, data.whole):
        stats = evaluator.evaluate(safest_first[0].policy)
        needed = samples_needed(
            stats.losses / stats.samples, stats.gains / stats.samples, permitted, confidence
        )
        if needed is not None:
            return f"{reason}; about {_round_up(2 * needed):,} would do."
    least = samples_needed(0, 0, permitted, confidence)
    if least is not None and least > data.certification.samples:
        return f"{reason}; it takes at least about {_round_up(2 * least):,}."
    return f"{reason}: the safest one loses {100 * stats.drop:.2f} points on them."


def _round_up(count: int) -> int:
    """`count` rounded up to two significant digits."""
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return math.ceil(count / unit) * unit
