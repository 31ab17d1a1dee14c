"""The protocol's model repository: listing, loading and unloading."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from serving.api.auth import AdminOnly
from serving.api.v2.common import ANY_ERROR, PREFIX, error
from serving.api.v2.requests import Body, read_object, validated
from serving.api.v2.schemas import IndexRequest, LoadRequest, UnloadRequest, inline_schema
from serving.errors import NotSupportedError
from serving.service import ServiceOf

REPOSITORY = PREFIX + "/repository"
REPOSITORY_MODEL = REPOSITORY + "/models/{name}"
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
router = APIRouter()


@dataclass(frozen=True)
class IndexEntry:
    """A model of the repository; `reason` is why it is in this state, or empty."""

    name: str
    version: str
    state: str
    reason: str


def _documented(model: type[Body]) -> dict[str, Any]:
    content = {"application/json": {"schema": inline_schema(model)}}
    return {"requestBody": {"required": False, "content": content}}


WRONG: dict[int | str, dict[str, Any]] = {
    400: error("The body is malformed."),
    413: error("The body is too large."),
    **ANY_ERROR,
}
CHANGING: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done; the body is empty.", "content": {}},
    401: error("The key is missing or wrong."),
    404: error("There is no model of this name."),
    501: error("The server has no repository, or does not support a parameter."),
    **WRONG,
}


@router.post(REPOSITORY + "/index", responses=WRONG, openapi_extra=_documented(IndexRequest))
async def index(request: Request, service: ServiceOf) -> list[IndexEntry]:
    """The models of the repository; those that are loaded are ready."""
    body = await _read(IndexRequest, request)
    manifests = [model.engine.manifest for model in service.models]
    loaded = [IndexEntry(entry.name, entry.version, READY, "") for entry in manifests]
    if body.ready:
        return loaded
    names = {entry.name for entry in loaded}
    # Manifests are read from the disk.
    known = await asyncio.to_thread(service.repository.names)
    others = sorted({name for name in known.values() if name not in names})
    return [*loaded, *(IndexEntry(name, "", UNAVAILABLE, "not loaded") for name in others)]


@router.post(
    REPOSITORY_MODEL + "/load",
    response_class=Response,
    dependencies=[AdminOnly],
    responses=CHANGING,
    openapi_extra=_documented(LoadRequest),
)
async def load(name: str, request: Request, service: ServiceOf) -> Response:
    """Load the model of this name from the repository, or replace it with the bundle that is there now."""
    body = await _read(LoadRequest, request)
    if body.parameters:
        # A client's files and configuration would replace the operator's.
        raise NotSupportedError("This server does not support parameters of loading.")
    await service.load_model(name)
    return Response()


@router.post(
    REPOSITORY_MODEL + "/unload",
    response_class=Response,
    dependencies=[AdminOnly],
    responses=CHANGING,
    openapi_extra=_documented(UnloadRequest),
)
async def unload(name: str, request: Request, service: ServiceOf) -> Response:
    """Unload the model of this name, once it has answered what it has accepted."""
    await _read(UnloadRequest, request)
    await service.unload_model(name)
    return Response()


async def _read(model: type[Body], request: Request) -> Body:
    body = await request.body()
    return validated(model, read_object(body) if body else {})
