"""What is known of a canary, for the API."""

from __future__ import annotations

from datetime import datetime

from pydantic.dataclasses import dataclass

from exports.bundle.schema_types import Interval
from serving.canary.bounds import FALSE_ROLLBACKS
from serving.canary.canary import Canary, Plan
from serving.canary.metrics import Outcome, Role
from serving.confidence_sequence import BernoulliSequence

SENTENCES: dict[Outcome, str] = {
    "error_rate": "It was rolled back: its share of failed requests is above the bound.",
    "latency": "It was rolled back: its time in stages is above the bound.",
    "agreement": "It was rolled back: its agreement with the stable version is below the bound.",
    "request": "It was rolled back on request.",
    "replaced": "It ended because the stable version was replaced or unloaded.",
    "promoted": "It was promoted.",
}
DIGITS = 4


@dataclass(frozen=True)
class SideReport:
    """A version's requests since the canary began, the `errors` among them (5xx), and the shares of its
    images at each exit. Times are of its latest 1,000 answers of normal priority, in milliseconds: from
    admission, and in stages. Percentiles are null with fewer than 100."""

    version: str
    requests: int
    errors: int
    mean_ms: float | None
    p99_ms: float | None
    stages_mean_ms: float | None
    stages_p50_ms: float | None
    stages_p95_ms: float | None
    exit_shares: list[float]


@dataclass(frozen=True)
class RateReport:
    """How often something happened: `events` in `count`, and an interval of the rate that is valid at every
    look."""

    count: int
    events: int
    interval: Interval


@dataclass(frozen=True)
class CanaryReport:
    """A canary: its `bundle`, the plan, both versions, and what the bounds are about: the canary's requests
    that failed (`errors`), those slower than the bound's multiple of the stable version's median (`slow_p50`)
    and 95th percentile (`slow_p95`), and its mirrored images that the stable version gave another class
    (`disagreements`).

    A canary within its bounds is ever rolled back with a probability of at most `false_rollbacks`.
    """

    bundle: str
    started: datetime
    plan: Plan
    stable: SideReport
    canary: SideReport
    errors: RateReport
    slow_p50: RateReport
    slow_p95: RateReport
    disagreements: RateReport
    false_rollbacks: float


@dataclass(frozen=True)
class EndedReport:
    """A canary that ended `at`: how, in a sentence, and what was known of it."""

    at: datetime
    outcome: Outcome
    sentence: str
    report: CanaryReport


def report(canary: Canary) -> CanaryReport:
    """What is known of `canary` now."""
    found = canary.evidence
    return CanaryReport(
        bundle=canary.bundle,
        started=canary.started,
        plan=canary.plan,
        stable=_side(canary, "stable"),
        canary=_side(canary, "canary"),
        errors=_rate(found.errors),
        slow_p50=_rate(found.slow[0]),
        slow_p95=_rate(found.slow[1]),
        disagreements=_rate(found.disagreements),
        false_rollbacks=FALSE_ROLLBACKS,
    )


def _side(canary: Canary, role: Role) -> SideReport:
    side = canary.sides[role]
    model = canary.model if role == "canary" else canary.stable
    return SideReport(
        version=side.version,
        requests=side.requests,
        errors=side.errors,
        mean_ms=_ms(side.served.mean()),
        p99_ms=_ms(side.served.quantile(0.99)),
        stages_mean_ms=_ms(side.stages.mean()),
        stages_p50_ms=_ms(side.stages.quantile(0.5)),
        stages_p95_ms=_ms(side.stages.quantile(0.95)),
        exit_shares=[
            round(share, DIGITS) for share in side.exit_shares(len(model.engine.manifest.exits))
        ],
    )


def _rate(found: BernoulliSequence) -> RateReport:
    low, high = found.interval()
    return RateReport(found.count, found.events, (round(low, DIGITS), round(high, DIGITS)))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 3)
