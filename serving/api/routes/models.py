"""/v1/models: what is loaded, and loading while serving."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, status

from serving.api.auth import AdminOnly
from serving.api.schemas import ErrorAnswer, ModelDetail, ModelList, detail, summarize
from serving.service import ServiceOf

UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no model of this name."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}
CLOSED: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "The server's key is missing or wrong."}
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


@router.put(
    "/{name}",
    dependencies=[AdminOnly],
    responses={
        **UNKNOWN,
        **CLOSED,
        404: {"model": ErrorAnswer, "description": "There is no bundle of this name to load."},
        409: {"model": ErrorAnswer, "description": "The bundle is not whole; nothing has changed."},
    },
)
async def load_model(name: str, service: ServiceOf) -> ModelDetail:
    """Load the bundle of this name, or swap it for the one that is served; the answer comes once
    requests go to it."""
    return detail(await service.load_model(name))


@router.delete(
    "/{name}",
    dependencies=[AdminOnly],
    status_code=status.HTTP_204_NO_CONTENT,
    responses={**UNKNOWN, **CLOSED},
)
async def unload_model(name: str, service: ServiceOf) -> None:
    """Serve this model no longer; requests that have begun are answered."""
    await service.unload_model(name)
