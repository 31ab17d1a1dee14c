"""What the protocol's routes share: the model in the path, and the form of errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends

from serving.errors import NotFoundError
from serving.models.registry import LoadedModel
from serving.service import ServiceOf

PREFIX = "/v2"
MODEL = PREFIX + "/models/{name}"
VERSION = MODEL + "/versions/{version}"


@dataclass(frozen=True)
class V2Error:
    """The form of the protocol's errors: one sentence."""

    error: str


def error(description: str) -> dict[str, Any]:
    """An error as a response of OpenAPI."""
    return {"model": V2Error, "description": description}


ANY_ERROR: dict[int | str, dict[str, Any]] = {"default": error("Any other error.")}
NO_MODEL: dict[int | str, dict[str, Any]] = {
    404: error("There is no model of this name or version."),
    503: error("No model is loaded yet."),
    **ANY_ERROR,
}


def named(name: str, service: ServiceOf) -> LoadedModel:
    """The model in the path; raises NotFoundError or NotReadyError."""
    return service.models.get(name)


def versioned(name: str, version: str, service: ServiceOf) -> LoadedModel:
    """The model in a path with a version, or its canary; raises NotFoundError or NotReadyError."""
    model = service.models.get(name)
    served = model.engine.manifest.version
    canary = service.canaries.running.get(name)
    if canary is not None and version == canary.version != served:
        return canary.model
    if version != served:
        raise NotFoundError(f"The model {name} has only the version {served}.")
    return model


Named = Annotated[LoadedModel, Depends(named)]
Versioned = Annotated[LoadedModel, Depends(versioned)]
