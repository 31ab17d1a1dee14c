"""When a canary is rolled back: a pure function of what was observed and of stated bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.confidence_sequence import BernoulliSequence

Reason = Literal["error_rate", "latency", "agreement"]

# The probability that a canary within its bounds is ever rolled back, of all three rules together.
FALSE_ROLLBACKS = 0.01
# No rule decides on fewer observations.
MIN_OBSERVATIONS = 10
# Quantiles of the time in stages that are compared. A request of the canary is slow by one if it takes longer
# than the bound's multiple of the stable version's; of an equal canary fewer than a share of 1 - quantile
# are.
QUANTILES = (0.5, 0.95)


class Bounds(BaseModel):
    """What a canary may do worse."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_error_rate: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01,
        description="Largest share of the canary's requests that fail by a fault of the server (5xx).",
    )
    max_latency_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        default=2.0,
        description="Largest ratio of the canary's time in stages to the stable version's, of the medians "
        "and of the 95th percentiles.",
    )
    min_agreement: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Least share of mirrored images that both versions give the same class; by default none.",
    )


LEVEL = FALSE_ROLLBACKS / (2 + len(QUANTILES))


def _sequence() -> BernoulliSequence:
    return BernoulliSequence(LEVEL)


@dataclass
class Evidence:
    """What is known of a canary: its requests that failed, those that were slow by each of QUANTILES, and its
    mirrored images that the stable version gave another class."""

    errors: BernoulliSequence = field(default_factory=_sequence)
    slow: tuple[BernoulliSequence, ...] = field(
        default_factory=lambda: tuple(_sequence() for _ in QUANTILES)
    )
    disagreements: BernoulliSequence = field(default_factory=_sequence)

    def verdict(self, bounds: Bounds) -> Reason | None:
        """Which of `bounds` the canary exceeds, None if that is not certain of any."""
        if _exceeds(self.errors, bounds.max_error_rate):
            return "error_rate"
        for quantile, slow in zip(QUANTILES, self.slow, strict=True):
            if _exceeds(slow, 1 - quantile):
                return "latency"
        if bounds.min_agreement is not None and _exceeds(
            self.disagreements, 1 - bounds.min_agreement
        ):
            return "agreement"
        return None


def slow_limit(stable_s: float, ratio: float, share: float) -> float:
    """The seconds in stages above which a request of the canary is slow.

    `stable_s` is the stable version's quantile. At a `share` above one half the canary's batches
    are the larger ones, by share / (1 - share) at most, and a batch's time grows at most in proportion.
    """
    return stable_s * ratio * max(1.0, share / max(1 - share, 1e-9))


def _exceeds(found: BernoulliSequence, bound: float) -> bool:
    return found.count >= MIN_OBSERVATIONS and found.is_above(bound)
