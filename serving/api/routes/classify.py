"""POST /v1/classify."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from serving.api.access_log import note_answer
from serving.api.asgi.disconnect import CancelOnDisconnect
from serving.api.budgets import LIMITED_HEADERS, limit, settle
from serving.api.dispatching import dispatch
from serving.api.examples import sample_image
from serving.api.image_bodies import FIELD, IMAGE_TYPES, read_images
from serving.api.query import ClassifyQuery, ResolvedRequest, resolve
from serving.api.schemas import ClassifyAnswer, ErrorAnswer, LimitedAnswer, Timing, compose, timing
from serving.scheduling.options import BatchResult
from serving.service import Service, of_request

PATH = "/v1/classify"
router = APIRouter(tags=["classify"])

_BINARY = {"type": "string", "format": "binary"}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "One image as it is, of any image/… type, several as multipart files, or several as "
    "base64 in JSON. The format is recognised by content.",
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
            },
            "example": {"images": [sample_image(8, 8)]},
        },
    },
}
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "A parameter, the body or an image is malformed."},
    404: {"model": ErrorAnswer, "description": "There is no model of this name."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    415: {"model": ErrorAnswer, "description": "The body is of another media type."},
    429: {"model": ErrorAnswer, "description": "The wait would be too long; see Retry-After."},
    503: {
        "model": ErrorAnswer,
        "description": "No model is loaded yet, or there is too little memory now.",
    },
    504: {"model": ErrorAnswer, "description": "The deadline came before the first exit."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}


@router.post(
    PATH,
    response_model=LimitedAnswer | ClassifyAnswer,
    responses=ERRORS,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def classify(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
    """Classify images; each leaves the network at the first exit that is confident enough."""
    started = time.perf_counter()
    service = of_request(request)
    resolved = resolve(query, request.scope, service, started)
    files = await read_images(request, service.settings)
    resolved = limit(service, request.scope, resolved, len(files))
    async with CancelOnDisconnect(request):
        resolved, result = await dispatch(service, resolved, files)
    body, spent = answer(service, request.scope, resolved, files, result, started)
    note_answer(request.scope, result.predictions, spent)
    headers = {"Server-Timing": server_timing(spent)}
    if resolved.limited:
        headers |= LIMITED_HEADERS
    return Response(body, media_type="application/json", headers=headers)


def answer(
    service: Service,
    scope: Scope,
    resolved: ResolvedRequest,
    files: list[bytes],
    result: BatchResult,
    started: float,
) -> tuple[bytes, Timing]:
    """Count and record the answer to a request that arrived at `started` of `time.perf_counter()`; its body,
    and its times."""
    total = time.perf_counter() - started
    service.answered(
        scope,
        resolved.model,
        resolved.policy,
        files,
        result,
        total,
        own_options=resolved.own_options,
        low_priority=resolved.priority == "low",
        trial=resolved.trial,
    )
    if resolved.reservation is not None:
        settle(resolved.reservation, resolved.model, result.predictions)
    spent = timing(result, total)
    found = compose(resolved.model, result, resolved.top_k, spent, limited=resolved.limited)
    return orjson.dumps(found), spent


def server_timing(spent: Timing) -> str:
    """The value of the header Server-Timing."""
    return (
        f"decode;dur={spent.decode}, queue;dur={spent.queue}, compute;dur={spent.compute}, "
        f"total;dur={spent.total}"
    )
