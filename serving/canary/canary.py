"""One canary: a second version of a model, what both have answered, and whether it keeps its bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import random
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Scope

from exports.bundle.policy import Policy
from serving.canary.assignment import Assignment
from serving.canary.bounds import QUANTILES, Bounds, Evidence, Reason, slow_limit
from serving.canary.metrics import Role
from serving.canary.side import Side
from serving.errors import DeadlineExceededError, DrainingError, ServingError
from serving.inference.engine import Prediction
from serving.models.registry import LoadedModel
from serving.scheduling.options import BatchResult

Share = Annotated[float, Field(ge=0, le=1)]
HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"


class Plan(BaseModel):
    """How a canary is tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Share = Field(default=0.1, description="Share of the requests that the canary answers.")
    header: Annotated[str, Field(max_length=128, pattern=HEADER_NAME)] | None = Field(
        default=None,
        description="A header whose values are assigned to versions, instead of single requests, such as "
        "X-User.",
    )
    mirror_share: Share = Field(
        default=0.1,
        description="Share of the canary's requests of which one image is also answered by the stable "
        "version, at low priority.",
    )
    bounds: Bounds = Field(default=Bounds(), description="When it is rolled back.")


@dataclass(eq=False)
class Canary:
    """`model` beside `stable`, which has the same name. Used on the event loop only.

    `agreed` and `compared` count mirrored images.
    """

    model: LoadedModel
    stable: LoadedModel
    bundle: str
    plan: Plan
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    evidence: Evidence = field(default_factory=Evidence)
    sides: dict[Role, Side] = field(init=False)
    assignment: Assignment = field(init=False)

    def __post_init__(self) -> None:
        self.sides = {
            "stable": Side(self.stable.engine.manifest.version),
            "canary": Side(self.version),
        }
        self.follow(self.plan)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.model.name

    @property
    def version(self) -> str:
        """The canary's version."""
        return self.model.engine.manifest.version

    def follow(self, plan: Plan) -> None:
        """Go on under `plan`, with what was observed so far."""
        self.plan = plan
        header = None if plan.header is None else plan.header.lower().encode()
        salt = f"{self.name}\0{self.version}".encode()
        self.assignment = Assignment(plan.share, header, salt)

    def takes(self, scope: Scope, uniform: Callable[[], float] = random) -> bool:
        """Whether the canary answers the request of `scope`."""
        return self.assignment.takes(scope, uniform)

    def answered(self, role: Role, result: BatchResult, *, low_priority: bool) -> None:
        """A request was answered; times of low priority do not count."""
        side, results = self.sides[role], result.predictions
        side.requests += 1
        side.exits.update(found.exit for found in results if isinstance(found, Prediction))
        failed = any(isinstance(found, ServingError) and is_fault(found) for found in results)
        side.errors += failed
        if role == "canary":
            self.evidence.errors.add(failed)
            if not low_priority:
                self._observe_time(result.compute)
        if not low_priority:
            side.served.add(result.served)
            side.stages.add(result.compute)

    def failed(self, role: Role) -> None:
        """A request failed by a fault of the server."""
        self.sides[role].requests += 1
        self.sides[role].errors += 1
        if role == "canary":
            self.evidence.errors.add(True)

    def mirrored(self, agrees: bool) -> None:
        """The stable version answered an image of the canary as well."""
        self.evidence.disagreements.add(not agrees)

    def verdict(self) -> Reason | None:
        """Why the canary must be rolled back, None if it need not be."""
        return self.evidence.verdict(self.plan.bounds)

    def _observe_time(self, seconds: float) -> None:
        ratio, share = self.plan.bounds.max_latency_ratio, self.plan.share
        for quantile, slow in zip(QUANTILES, self.evidence.slow, strict=True):
            stable = self.sides["stable"].stages.quantile(quantile)
            if stable is not None:
                slow.add(seconds > slow_limit(stable, ratio, share))


class Trial(NamedTuple):
    """A request's part in the comparison: the version that answers it, and how the stable version does or
    would decide where its images leave."""

    canary: Canary
    role: Role
    stable_policy: Policy


def is_fault(error: BaseException) -> bool:
    """Whether `error` is a fault of the version that answers: neither of the request, nor of the load, nor of
    a deadline."""
    if isinstance(error, ServingError):
        return error.status >= 500 and not isinstance(error, DeadlineExceededError | DrainingError)
    return isinstance(error, Exception)
