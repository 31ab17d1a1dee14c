"""GET /v1/models/{name}/shadow: how often exits agree with full depth, and the thresholds raised for it."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field
from pydantic.dataclasses import dataclass

from serving.api.routes.models import UNKNOWN_MODEL
from serving.models.registry import LoadedModel
from serving.service import ServiceOf
from serving.settings import Settings
from serving.shadow.checks import ExitCheck
from serving.shadow.monitor import RaiseEvent, ShadowStatus, describe

router = APIRouter(prefix="/v1/models/{name}", tags=["models"])


@dataclass(frozen=True)
class SpanAnswer:
    """Of the last `shadows` of an exit `agreed` agreed with full depth; the agreement of all is from `low` to
    `high`, at every look."""

    shadows: int
    agreed: int
    low: float
    high: float


@dataclass(frozen=True)
class ShadowExit:
    """The check of one exit.

    `threshold` is in force, `set_threshold` that of the policy as it was set. Of the calibration table
    `table_samples` samples left here and the share `table_agreement` agreed with full depth; at least
    `promised` must. `shadows` is their number since the policy was set. `span` is the one with the lowest
    `high` since the threshold was last raised, null without shadows.
    """

    exit: int
    threshold: float
    set_threshold: float
    table_samples: int
    table_agreement: float | None
    promised: float
    shadows: int
    span: SpanAnswer | None


@dataclass(frozen=True)
class RaiseAnswer:
    """A raise of a threshold, and the shadows that showed it to be too low."""

    at: datetime
    exit: int
    before: float
    after: float
    sentence: str


@dataclass(frozen=True)
class ShadowStatusAnswer:
    """The checked exits since `started`, when the policy was set, and the last raises, the latest first.

    The share `share` of the images that left early is checked, with at most `max_work` of the requests' work.
    """

    share: float
    max_work: float
    started: datetime
    exits: list[ShadowExit]
    raises: list[RaiseAnswer]


@dataclass(frozen=True)
class ShadowAnswer:
    """The shadow checks of a model: in a sentence, and in numbers."""

    sentence: str
    status: ShadowStatusAnswer | None = Field(description="Null while no exit is checked.")


@router.get("/shadow", responses=UNKNOWN_MODEL)
async def get_shadow(name: str, service: ServiceOf) -> ShadowAnswer:
    """Whether exits agree with full depth as often as the policy promises, by images that ran on."""
    model = service.models.get(name)
    if service.shadow is None:
        return ShadowAnswer("Exits are not checked: shadow_share is 0.", None)
    found = service.shadow.status(model)
    if found is None:
        return ShadowAnswer("The exits are not checked yet.", None)
    return ShadowAnswer(_sentence(found, model), _status(found, service.settings))


def _status(found: ShadowStatus, settings: Settings) -> ShadowStatusAnswer:
    return ShadowStatusAnswer(
        share=settings.shadow_share,
        max_work=settings.shadow_max_work,
        started=found.started,
        exits=[_exit(one, found.set_thresholds[one.promise.exit_ - 1]) for one in found.exits],
        raises=[_raise(one) for one in found.raises],
    )


def _exit(check: ExitCheck, set_threshold: float) -> ShadowExit:
    promise, span = check.promise, check.sequences.lowest()
    return ShadowExit(
        exit=promise.exit_,
        threshold=check.threshold,
        set_threshold=set_threshold,
        table_samples=promise.samples,
        table_agreement=None if promise.agreement is None else round(promise.agreement, 4),
        promised=round(promise.promised, 4),
        shadows=check.shadows,
        span=None
        if span is None
        else SpanAnswer(span.samples, span.agreed, round(span.low, 4), round(span.high, 4)),
    )


def _raise(event: RaiseEvent) -> RaiseAnswer:
    found = event.found
    return RaiseAnswer(event.at, found.exit_, found.before, found.after, describe(found))


def _sentence(found: ShadowStatus, model: LoadedModel) -> str:
    if not found.exits:
        return "No image leaves early under this policy."
    shadows = sum(check.shadows for check in found.exits)
    raised = [
        check.promise.exit_
        for check in found.exits
        if check.threshold > found.set_thresholds[check.promise.exit_ - 1]
    ]
    if not raised:
        return f"{shadows:,} shadows since the policy was set: no exit is below its promise."
    names = ", ".join(map(str, raised))
    exits = f"exit {names}" if len(raised) == 1 else f"exits {names}"
    return (
        f"{shadows:,} shadows since the policy was set: the threshold of {exits} was raised; "
        f"put a policy to replace revision {model.revision}."
    )
