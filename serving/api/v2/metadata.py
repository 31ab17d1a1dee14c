"""Health and metadata of the server and its models."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter

from offramp import __version__
from serving.api.v2.common import (
    ANY_ERROR,
    MODEL,
    NO_MODEL,
    PREFIX,
    VERSION,
    Named,
    Versioned,
    error,
)
from serving.api.v2.model import ModelMetadata, metadata_of
from serving.models.registry import LoadedModel
from serving.service import ServiceOf

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
router = APIRouter()


@dataclass(frozen=True)
class Live:
    """Whether the server answers."""

    live: bool


@dataclass(frozen=True)
class Ready:
    """Whether the server is ready."""

    ready: bool


@dataclass(frozen=True)
class ModelReady:
    """Whether a model is ready."""

    name: str
    ready: bool


@dataclass(frozen=True)
class ServerMetadata:
    """The server, its version and the protocol's extensions that it supports."""

    name: str
    version: str
    extensions: list[str]


@router.get(PREFIX + "/health/live", responses=ANY_ERROR)
async def live() -> Live:
    """Whether the process answers."""
    return Live(live=True)


UNREADY = {503: error("Not ready yet, or shutting down."), **ANY_ERROR}


@router.get(PREFIX + "/health/ready", responses=UNREADY)
async def ready(service: ServiceOf) -> Ready:
    """Whether requests should be sent here."""
    service.require_ready()
    return Ready(ready=True)


@router.get(PREFIX, responses=ANY_ERROR)
@router.get(PREFIX + "/", responses=ANY_ERROR)
async def server_metadata() -> ServerMetadata:
    """The server's name, version and extensions."""
    return ServerMetadata("offramp", __version__, list(EXTENSIONS))


@router.get(MODEL, responses=NO_MODEL)
async def model_metadata(model: Named) -> ModelMetadata:
    """A model's tensors."""
    return metadata_of(model)


@router.get(VERSION, responses=NO_MODEL)
async def model_version_metadata(model: Versioned) -> ModelMetadata:
    """A model's tensors, if it has this version."""
    return metadata_of(model)


@router.get(MODEL + "/ready", responses=NO_MODEL)
async def model_ready(model: Named) -> ModelReady:
    """Whether a model is ready."""
    return _is_ready(model)


@router.get(VERSION + "/ready", responses=NO_MODEL)
async def model_version_ready(model: Versioned) -> ModelReady:
    """Whether a model is ready in this version."""
    return _is_ready(model)


def _is_ready(model: LoadedModel) -> ModelReady:
    # Models are listed once they are warm, so all of them are ready.
    return ModelReady(model.name, ready=True)
