"""/v1/models: the loaded models, and loading and unloading them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, status

from serving.api.auth import AdminOnly
from serving.api.schemas import ErrorAnswer, ModelDetail, ModelList, detail, summarize
from serving.service import ServiceOf

UNKNOWN_MODEL: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no model of this name."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}
UNAUTHORIZED: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "The server's key is missing or wrong."}
}
router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
async def list_models(service: ServiceOf) -> ModelList:
    """The loaded models; the first one is the default."""
    return ModelList([summarize(model) for model in service.models])


@router.get("/{name}", responses=UNKNOWN_MODEL)
async def get_model(name: str, service: ServiceOf) -> ModelDetail:
    """One loaded model, with its labels."""
    return detail(service.models.get(name))


@router.put(
    "/{name}",
    dependencies=[AdminOnly],
    responses={
        **UNKNOWN_MODEL,
        **UNAUTHORIZED,
        404: {"model": ErrorAnswer, "description": "There is no bundle of this name to load."},
        409: {"model": ErrorAnswer, "description": "The bundle is not whole; nothing has changed."},
    },
)
async def load_model(name: str, service: ServiceOf) -> ModelDetail:
    """Load the bundle of this name, replacing a served one; the answer comes once it serves requests."""
    return detail(await service.load_model(name))


@router.delete(
    "/{name}",
    dependencies=[AdminOnly],
    status_code=status.HTTP_204_NO_CONTENT,
    responses={**UNKNOWN_MODEL, **UNAUTHORIZED},
)
async def unload_model(name: str, service: ServiceOf) -> None:
    """Unload a model; requests that were accepted are answered."""
    await service.unload_model(name)
