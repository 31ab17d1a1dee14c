"""/v1/models/{name}/policy and /tradeoff: reading, previewing and changing the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exports.bundle.errors import BundleError
from exports.bundle.policy import Combine, Measure, Policy
from exports.tuning.preview import Preview, Tradeoff
from exports.tuning.selective.curve import Coverage
from serving.api.auth import AdminOnly
from serving.api.routes.models import UNAUTHORIZED, UNKNOWN_MODEL
from serving.api.schemas import ErrorAnswer, PolicyAnswer
from serving.errors import BadBundleError
from serving.models.checks import check_fits
from serving.models.registry import LoadedModel
from serving.service import ServiceOf

T = TypeVar("T")
CHANGED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The policy is malformed or does not fit."},
    409: {
        "model": ErrorAnswer,
        "description": "The bundle on the disk cannot be written, or is no longer the loaded one.",
    },
}
router = APIRouter(prefix="/v1/models/{name}", tags=["policy"])


class ChangePolicyQuery(BaseModel):
    """How to change a policy."""

    model_config = ConfigDict(extra="forbid")

    persist: bool = Field(False, description="Also write it into the bundle, for the next start.")


class TradeoffQuery(BaseModel):
    """Which curve; the policy in force decides what is not given."""

    model_config = ConfigDict(extra="forbid")

    measure: Measure | None = Field(None, description="Measure of confidence.")
    combine: Combine | None = Field(None, description="An exit alone, or the running ensemble.")


@router.get("/policy", responses=UNKNOWN_MODEL)
async def get_policy(name: str, service: ServiceOf, response: Response) -> PolicyAnswer:
    """The policy in force; its revision is also the ETag."""
    return _policy_answer(service.models.get(name), response)


@router.put(
    "/policy",
    dependencies=[AdminOnly],
    responses={
        **UNKNOWN_MODEL,
        **UNAUTHORIZED,
        **CHANGED,
        412: {"model": ErrorAnswer, "description": "If-Match names another revision."},
    },
)
async def put_policy(
    name: str,
    policy: Policy,
    query: Annotated[ChangePolicyQuery, Query()],
    service: ServiceOf,
    response: Response,
    if_match: Annotated[str | None, Header(description="The ETag that was read.")] = None,
) -> PolicyAnswer:
    """Put a policy in force for new requests; accepted ones keep theirs."""
    model = await service.manager.set_policy(name, policy, if_match=if_match, persist=query.persist)
    return _policy_answer(model, response)


@router.post("/policy/preview", responses={**UNKNOWN_MODEL, **CHANGED})
async def preview_policy(name: str, policy: Policy, service: ServiceOf) -> Preview:
    """What a policy would do, computed on the calibration table; nothing changes."""
    model = service.models.get(name)
    check_fits(policy, model)
    return await _compute(lambda: model.calibration.preview(policy))


@router.post("/policy/coverage", responses={**UNKNOWN_MODEL, **CHANGED})
async def preview_coverage(name: str, policy: Policy, service: ServiceOf) -> Coverage:
    """The accuracy of what a policy answers against the share it answers, over `reject_below`."""
    model = service.models.get(name)
    check_fits(policy, model)
    return await _compute(lambda: model.calibration.coverage(policy))


@router.get("/tradeoff", responses={**UNKNOWN_MODEL, 409: CHANGED[409]})
async def get_tradeoff(
    name: str, query: Annotated[TradeoffQuery, Query()], service: ServiceOf
) -> Tradeoff:
    """Accuracy, mean cost and exit shares over one threshold shared by all exits."""
    model = service.models.get(name)
    policy = model.policy
    measure, combine = query.measure or policy.measure, query.combine or policy.combine
    return await _compute(lambda: model.calibration.tradeoff(policy, measure, combine))


async def _compute(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except BundleError as error:
        raise BadBundleError(str(error)) from error


def _policy_answer(model: LoadedModel, response: Response) -> PolicyAnswer:
    response.headers["ETag"] = f'"{model.revision}"'
    return PolicyAnswer(model.revision, model.policy, model.certificate_verified)
