"""GET /v1/models and below."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from serving.answers import (
    ErrorAnswer,
    ModelDetail,
    ModelList,
    PolicyAnswer,
    detail,
    summarize,
)
from serving.service import ServiceOf

UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no model of this name."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}
router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
async def list_models(service: ServiceOf) -> ModelList:
    """The loaded models; the first one is the default."""
    return ModelList([summarize(model) for model in service.models])


@router.get("/{name}", responses=UNKNOWN)
async def get_model(name: str, service: ServiceOf) -> ModelDetail:
    """One loaded model, with its labels."""
    return detail(service.models.get(name))


@router.get("/{name}/policy", responses=UNKNOWN)
async def get_policy(name: str, service: ServiceOf, response: Response) -> PolicyAnswer:
    """The policy in force; its revision is the ETag too."""
    model = service.models.get(name)
    response.headers["ETag"] = f'"{model.revision}"'
    return PolicyAnswer(model.revision, model.policy)
