"""/v1/models/{name}/canary: a second version on a share of the requests, beside the one that is served."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from serving.api.auth import AdminOnly
from serving.api.routes.models import UNAUTHORIZED, UNKNOWN_MODEL
from serving.api.schemas import ErrorAnswer
from serving.canary.bounds import Bounds
from serving.canary.canary import Plan, Share
from serving.canary.report import CanaryReport, EndedReport, report
from serving.service import Service, ServiceOf

PATH = "/v1/models/{name}/canary"
NO_CANARY: dict[int | str, dict[str, Any]] = {
    **UNKNOWN_MODEL,
    **UNAUTHORIZED,
    404: {"model": ErrorAnswer, "description": "There is no such model, or it has no canary."},
}
router = APIRouter(tags=["models"])


class CanaryRequest(Plan):
    """A canary to start."""

    bundle: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        description="The subdirectory of the repository that has the bundle."
    )


class CanaryChange(BaseModel):
    """What to change of a canary; what is not given stays, single bounds as well."""

    model_config = ConfigDict(extra="forbid")

    share: Share | None = Field(None, description="Share of the requests that the canary answers.")
    mirror_share: Share | None = Field(
        None, description="Share of the canary's requests that are mirrored."
    )
    bounds: Bounds | None = Field(None, description="When it is rolled back.")


@dataclass(frozen=True)
class CanaryAnswer:
    """The canary of a model: in a sentence, and in numbers. `running` is null without one; `ended` are the
    last ones since the start of the server, the latest first."""

    sentence: str
    running: CanaryReport | None
    ended: list[EndedReport]


@router.get(PATH, responses=UNKNOWN_MODEL)
async def get_canary(name: str, service: ServiceOf) -> CanaryAnswer:
    """The canary of a model beside the stable version, and those that have ended."""
    return _answer(name, service)


@router.post(
    PATH,
    dependencies=[AdminOnly],
    status_code=status.HTTP_201_CREATED,
    responses={
        **UNKNOWN_MODEL,
        **UNAUTHORIZED,
        400: {"model": ErrorAnswer, "description": "The body is malformed."},
        404: {"model": ErrorAnswer, "description": "There is no such model or bundle."},
        409: {
            "model": ErrorAnswer,
            "description": "The bundle is damaged or does not fit, or the model has a canary.",
        },
    },
)
async def start_canary(name: str, wanted: CanaryRequest, service: ServiceOf) -> CanaryAnswer:
    """Load a second version of a model, and let it answer a share of the requests."""
    plan = Plan(**{key: getattr(wanted, key) for key in Plan.model_fields})
    await service.canaries.start(name, wanted.bundle, plan)
    return _answer(name, service)


@router.patch(
    PATH,
    dependencies=[AdminOnly],
    responses={
        **NO_CANARY,
        400: {"model": ErrorAnswer, "description": "The body is malformed."},
    },
)
async def change_canary(name: str, change: CanaryChange, service: ServiceOf) -> CanaryAnswer:
    """Change the share or the bounds of a canary; what was counted so far stays."""
    plan = service.canaries.get(name).plan
    given = {
        key: value
        for key in CanaryChange.model_fields
        if (value := getattr(change, key)) is not None
    }
    if change.bounds is not None:
        bounds = change.bounds.model_dump(exclude_unset=True)
        given["bounds"] = plan.bounds.model_copy(update=bounds)
    service.canaries.change(name, plan.model_copy(update=given))
    return _answer(name, service)


@router.post(PATH + "/promote", dependencies=[AdminOnly], responses=NO_CANARY)
async def promote_canary(name: str, service: ServiceOf) -> CanaryAnswer:
    """Serve the canary to all later requests; those that have started keep their version."""
    await service.canaries.promote(name)
    return _answer(name, service)


@router.delete(PATH, dependencies=[AdminOnly], responses=NO_CANARY)
async def roll_back_canary(name: str, service: ServiceOf) -> CanaryAnswer:
    """Let the stable version answer all later requests; those of the canary that have started are
    answered."""
    service.canaries.roll_back(name)
    return _answer(name, service)


def _answer(name: str, service: Service) -> CanaryAnswer:
    model = service.models.get(name)
    canary = service.canaries.running.get(model.name)
    running = None if canary is None else report(canary)
    ended = list(service.canaries.ended(model.name))
    return CanaryAnswer(_sentence(running, ended), running, ended)


def _sentence(running: CanaryReport | None, ended: list[EndedReport]) -> str:
    if running is not None:
        values = "" if running.plan.header is None else f" by {running.plan.header}"
        return (
            f"Version {running.canary.version} answers {running.plan.share:.1%} of the requests{values}, "
            f"{running.canary.requests} so far; version {running.stable.version} answers the others."
        )
    if ended:
        return f"No canary is running. The last one was {ended[0].report.canary.version}. {ended[0].sentence}"
    return "No canary is running."
