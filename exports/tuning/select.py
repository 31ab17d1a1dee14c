"""From a goal to a policy: thresholds chosen on one half of a table, certified on the other."""

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
from exports.tuning.search import Point, PolicyEvaluator, PolicyStats, frontier

Unit = Literal["macs", "ms"]

DEFAULT_DROP = 0.005
DEFAULT_CONFIDENCE = 0.95
# Standard errors that a policy to be certified is charged: the limit's own 1.6, as many for luck.
CAUTION = 3.0
_CHEAPER = 1 - 1e-9  # than full depth, by more than rounding


@dataclass(frozen=True)
class Goal:
    """What is wanted; accuracies are shares (0.005 is half a point).

    max_drop: the cheapest policy at most `value` below the ensemble, with `confidence` if that is given;
    min_accuracy: the cheapest of at least this accuracy; budget: the most accurate whose mean cost is
    at most `value`. Costs are in `unit`.
    """

    kind: Literal["max_drop", "min_accuracy", "budget"] = "max_drop"
    value: float = DEFAULT_DROP
    confidence: float | None = None
    unit: Unit = "macs"

    @property
    def phrase(self) -> str:
        """The goal in words."""
        if self.kind == "budget":
            return f"the most accurate at {self.amount(self.value)} a sample"
        if self.kind == "min_accuracy":
            return f"the cheapest that is right on {100 * self.value:g} %"
        sure = "" if self.confidence is None else f", with {100 * self.confidence:g} % confidence"
        return f"the cheapest at most {100 * self.value:g} points below the ensemble{sure}"

    def amount(self, cost: float) -> str:
        """`cost` with its unit."""
        return f"{cost:.4g} ms" if self.unit == "ms" else f"{cost / 1e6:.4g} M MACs"


CERTIFIED_DEFAULT = Goal(confidence=DEFAULT_CONFIDENCE)


@dataclass(frozen=True)
class Data:
    """A table as the search sees it, in halves: `first` to choose on, `second` to certify on.

    `source_sha256` is the hash of the file that holds the samples; under the target `agreement` an
    answer is right where it is the ensemble's.
    """

    whole: PolicyEvaluator
    first: PolicyEvaluator
    second: PolicyEvaluator
    split_sha256: str
    target: Target

    @classmethod
    def of(
        cls, table: Table, scaling: Scaling, source_sha256: str, target: Target = "labels"
    ) -> Data:
        """Halve `table`; raises TuningError if it has fewer than two samples."""
        if len(table.labels) < 2:
            raise TuningError("There must be at least two samples: to choose on and to check on.")
        whole = PolicyEvaluator.of(table, scaling)
        chosen_on, certified_on = halves(whole.samples)
        split = split_sha256(source_sha256, certified_on)
        return cls(whole, whole.take(chosen_on), whole.take(certified_on), split, target)


def choose(data: Data, costs: Sequence[float], goal: Goal) -> Policy:
    """The policy that reaches `goal`, chosen on the first half of `data`.

    `costs` [K] is the cost of leaving at each exit. With a confidence the policy carries a certificate,
    proven on the second half. Raises TuningError, with what would be possible, if none does.
    """
    if goal.confidence is not None:
        return _certified(data, costs, goal.value, goal.confidence)
    points = frontier(data.first, costs)
    ensemble = float(data.first.ensemble.mean())
    if goal.kind == "budget":
        within = [point for point in points if point.cost <= goal.value]
        if not within:
            raise TuningError(
                f"No policy costs {goal.amount(goal.value)} a sample or less; "
                f"the cheapest costs {goal.amount(points[0].cost)}."
            )
        return within[-1].policy
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

    It is certified where the table supports that, otherwise the cheapest that loses no more than
    DEFAULT_DROP on the half it was chosen on. `scaling` must not have seen the other half.
    """
    data = Data.of(table, scaling, source_sha256)
    try:
        policy = choose(data, costs, CERTIFIED_DEFAULT)
    except TuningError as refusal:
        return choose(data, costs, Goal()), f"The default policy is not certified: {refusal}"
    assert policy.certificate is not None
    return policy, policy.certificate.sentence


def confirmed(policy: Policy, data: Data) -> bool | None:
    """Whether the certificate of `policy` follows from `data`; None if it is of other samples."""
    found = policy.certificate
    if found is None or found.split_sha256 != data.split_sha256:
        return None
    permitted = found.permitted_drop / 100
    stats = data.second.evaluate(policy)
    return _holds(stats, data, permitted, found.confidence) and found == _certificate(
        stats, data, permitted, found.confidence
    )


def _certified(data: Data, costs: Sequence[float], permitted: float, confidence: float) -> Policy:
    """Fixed-sequence testing: from the safest policy to the cheapest, until one fails.

    Learn then Test (Angelopoulos et al. 2021): an order fixed without the second half
    makes the probability that any accepted policy is worse than permitted at most 1 - confidence,
    with no correction for how many are tested.
    """
    path = [p for p in frontier(data.first, costs, CAUTION) if p.cost < _CHEAPER * costs[-1]][::-1]
    proven: list[tuple[Policy, PolicyStats]] = []
    for point in path:
        stats = data.second.evaluate(point.policy)
        if not _holds(stats, data, permitted, confidence):
            break
        proven.append((point.policy, stats))
    if not proven:
        raise TuningError(_unsupported(path, data, permitted, confidence))
    policy, stats = proven[-1]
    certificate = _certificate(stats, data, permitted, confidence)
    return policy.model_copy(update={"certificate": certificate})


def _holds(stats: PolicyStats, data: Data, permitted: float, confidence: float) -> bool:
    if data.target == "agreement":
        return proportion_bound(stats.losses, stats.samples, confidence) <= permitted
    return drop_holds(stats.losses, stats.gains, stats.samples, permitted, confidence)


def _certificate(
    stats: PolicyStats, data: Data, permitted: float, confidence: float
) -> Certificate:
    if data.target == "agreement":
        bound = proportion_bound(stats.losses, stats.samples, confidence)
    else:
        bound = drop_bound(stats.losses, stats.gains, stats.samples, confidence)
    points = round(100 * permitted, 6)
    return Certificate(
        method="clopper-pearson" if data.target == "agreement" else "exact-trinomial",
        permitted_drop=points,
        confidence=confidence,
        bound=min(math.ceil(1e6 * bound) / 1e4, points),
        chosen_on=data.first.samples,
        samples=stats.samples,
        split_sha256=data.split_sha256,
        target=data.target,
    )


def _unsupported(path: list[Point], data: Data, permitted: float, confidence: float) -> str:
    """Why nothing was certified, and from how many samples on something would be."""
    if not path:
        return "The network has no exit before the last, so every policy is the ensemble."
    say = (
        f"No policy cheaper than the ensemble can be promised to lose at most {100 * permitted:g} "
        f"points with {100 * confidence:g} % confidence from {data.whole.samples:,} samples"
    )
    # The safest policy, judged by the half that refused it, else by all samples.
    for evaluator in (data.second, data.whole):
        stats = evaluator.evaluate(path[0].policy)
        needed = samples_needed(
            stats.losses / stats.samples, stats.gains / stats.samples, permitted, confidence
        )
        if needed is not None:
            return f"{say}; about {_rounded_up(2 * needed):,} would do."
    least = samples_needed(0, 0, permitted, confidence)
    if least is not None and least > data.second.samples:
        return f"{say}; it takes at least about {_rounded_up(2 * least):,}."
    return f"{say}: the safest one loses {100 * stats.drop:.2f} points on them."


def _rounded_up(count: int) -> int:
    """`count` with two significant digits."""
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return math.ceil(count / unit) * unit
