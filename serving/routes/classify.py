"""POST /v1/classify."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from exports.errors import PolicyError
from exports.policy import Mode
from serving.answers import ClassifyAnswer, ErrorAnswer, Timing, describe, resolve_top_k
from serving.bodies import FIELD, IMAGE_TYPES, read_images
from serving.errors import InvalidRequestError
from serving.service import ServiceOf
from serving.work import Done

PATH = "/v1/classify"
router = APIRouter(tags=["classify"])


class ClassifyQuery(BaseModel):
    """What one request may wish for; the model's policy holds where it wishes nothing."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Name of the model; the first one by default.")
    top_k: int | None = Field(
        None, ge=1, description="How many classes to list, at most all; 5 by default."
    )
    mode: Mode | None = Field(None, description="How to answer, in place of the policy's mode.")
    threshold: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Confidence to leave at, at every exit: 0 leaves at the first, "
        "above 1 never leaves early.",
    )
    max_exit: int | None = Field(None, ge=1, description="Deepest exit to go to, from 1.")


_BINARY = {"type": "string", "format": "binary"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "One image as it is, several as multipart files, or several as base64 in JSON.",
    "content": {
        **{kind: {"schema": _BINARY} for kind in IMAGE_TYPES},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "array", "minItems": 1, "items": _BINARY}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "additionalProperties": False,
                "properties": {
                    "images": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "byte"},
                    }
                },
            }
        },
    },
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "A parameter, the body or an image is malformed."},
    404: {"model": ErrorAnswer, "description": "There is no model of this name."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    415: {"model": ErrorAnswer, "description": "The body is of another media type."},
    429: {"model": ErrorAnswer, "description": "Too many images are waiting; see Retry-After."},
    503: {"model": ErrorAnswer, "description": "No model is loaded yet."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}


@router.post(
    PATH,
    response_model=ClassifyAnswer,
    responses=ERRORS,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def classify(
    request: Request, query: Annotated[ClassifyQuery, Query()], service: ServiceOf
) -> Response:
    """Classify images; each leaves the network at the first exit that is sure enough."""
    started = time.perf_counter()
    model = service.models.get(query.model)
    # The error handlers count failures by model.
    request.state.model = model.name
    manifest = model.engine.manifest
    top_k = resolve_top_k(query.top_k, len(manifest.labels))
    try:
        policy = model.policy.override(query.mode, query.threshold, query.max_exit)
    except PolicyError as error:
        raise InvalidRequestError(str(error)) from error
    settings = service.settings
    files = await read_images(
        request, max_images=settings.max_images, max_body_bytes=settings.max_body_bytes
    )
    done = await service.work.classify(model.engine, files, policy)
    predictions = [describe(prediction, manifest, top_k) for prediction in done.predictions]
    total = time.perf_counter() - started
    service.metrics.answered(model.name, done.predictions, total)
    timing = _timing(done, total)
    answer = ClassifyAnswer(manifest.name, manifest.version, predictions, timing)
    return Response(
        orjson.dumps(answer),
        media_type="application/json",
        headers={"Server-Timing": _server_timing(timing)},
    )


def _timing(done: Done, total: float) -> Timing:
    seconds = (done.decode, done.queue, done.compute, total)
    return Timing(*(round(1000 * value, 3) for value in seconds))


def _server_timing(timing: Timing) -> str:
    return ", ".join(f"{name};dur={value}" for name, value in vars(timing).items())
