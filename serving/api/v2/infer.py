"""Inference by the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from serving.api.access_log import note_answer
from serving.api.asgi.disconnect import CancelOnDisconnect
from serving.api.asgi.fast_path import CANCELLED
from serving.api.budgets import BUDGET, LIMITED_HEADERS, limit, settle
from serving.api.dispatching import dispatch, refund
from serving.api.examples import sample_image
from serving.api.image_bodies import MAX_INLINE_BYTES
from serving.api.query import resolve_for
from serving.api.schemas import timing
from serving.api.v2.common import MODEL, NO_MODEL, VERSION, Named, Versioned, error
from serving.api.v2.model import INPUT
from serving.api.v2.requests import HEADER, read_inference
from serving.api.v2.responses import write_response
from serving.api.v2.schemas import InferenceRequest, inline_schema
from serving.errors import ServingError
from serving.inference.engine import Prediction
from serving.models.registry import LoadedModel
from serving.scheduling.options import ImageResult, Priority
from serving.service import Service, ServiceOf

router = APIRouter()
_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {"type": ["number", "string"]}},
    },
}
ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "measure": {"type": "string"},
                "exit": {"type": "integer"},
                "confidence": {"type": "number"},
                "measured": {"type": "number"},
                "reason": {"type": "string"},
                "limited_by": {"type": "string"},
            },
        },
        "outputs": {"type": "array", "items": _TENSOR},
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A tensor per requested output; as binary data after the JSON, where requested.",
        "content": {"application/json": {"schema": ANSWER}, "application/octet-stream": _BINARY},
    },
    400: error("A parameter, a tensor or an image is malformed."),
    413: error("The body is too large."),
    415: error("The body has an unknown Content-Encoding."),
    429: error("Too many images are waiting; see Retry-After."),
    501: error("Shared memory and sequences are not supported."),
    504: error("Not even the first exit was reached in time."),
    **NO_MODEL,
    503: error("No model is loaded yet, or there is too little memory now."),
}
DOCUMENTED: dict[str, Any] = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "description": "Length of the JSON in bytes if binary data follows it; "
            "0 if the body is one image file.",
            "schema": {"type": "integer", "minimum": 0},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": inline_schema(InferenceRequest),
                "example": {
                    "inputs": [
                        {
                            "name": INPUT,
                            "shape": [1],
                            "datatype": "BYTES",
                            "data": [sample_image(8, 8)],
                        }
                    ]
                },
            },
            "application/octet-stream": _BINARY,
        },
    },
}


@router.post(
    MODEL + "/infer", response_class=Response, responses=RESPONSES, openapi_extra=DOCUMENTED
)
async def infer(request: Request, model: Named, service: ServiceOf) -> Response:
    """Classify images; each leaves the network at the first exit that is confident enough."""
    return await _infer(request, model, service)


@router.post(
    VERSION + "/infer", response_class=Response, responses=RESPONSES, openapi_extra=DOCUMENTED
)
async def infer_version(request: Request, model: Versioned, service: ServiceOf) -> Response:
    """Classify images with this version of the model, which may be its canary."""
    return await _infer(request, model, service, chosen=True)


async def _infer(
    request: Request, model: LoadedModel, service: Service, *, chosen: bool = False
) -> Response:
    """With `chosen` the client has chosen the version."""
    # The error handlers count failures by model.
    request.state.model = model.name
    try:
        return await _answer(request, model, service, chosen=chosen)
    except ClientDisconnect:
        service.metrics.failed(model.name, CANCELLED)
        raise


async def _answer(
    request: Request, model: LoadedModel, service: Service, *, chosen: bool
) -> Response:
    started = time.perf_counter()
    service.dispatcher.check()
    manifest = model.engine.manifest
    body = await request.body()
    arguments = (
        body,
        request.headers.get(HEADER),
        manifest.input,
        service.settings.max_images,
    )
    if len(body) <= MAX_INLINE_BYTES:
        wanted = read_inference(*arguments)
    else:
        wanted = await asyncio.to_thread(read_inference, *arguments)
    parameters = wanted.parameters
    deadline = started + parameters.timeout / 1e6 if parameters.timeout else None
    # In the protocol 1 is the highest level, and 0 the default.
    priority: Priority = "normal" if (parameters.priority or 0) <= 1 else "low"
    scope = None if chosen else request.scope
    resolved = resolve_for(parameters, model, None, deadline, priority, scope, service)
    resolved = limit(service, request.scope, resolved, len(wanted.images))
    async with CancelOnDisconnect(request):
        resolved, result = await dispatch(service, resolved, wanted.images)
    try:
        predictions = _all_or_error(result.predictions)
    except ServingError:
        refund(resolved)
        raise
    if resolved.reservation is not None:
        settle(resolved.reservation, resolved.model, predictions)
    limited_by = BUDGET if resolved.limited else None
    content, headers = write_response(
        wanted, resolved.model.engine.manifest, predictions, limited_by
    )
    if resolved.limited:
        headers |= LIMITED_HEADERS
    total = time.perf_counter() - started
    service.answered(
        request.scope,
        resolved.model,
        resolved.policy,
        wanted.images,
        result,
        total,
        own_options=resolved.own_options,
        low_priority=priority == "low",
        trial=resolved.trial,
    )
    note_answer(request.scope, predictions, timing(result, total))
    return Response(content, headers=headers)


def _all_or_error(results: Sequence[ImageResult]) -> list[Prediction]:
    """The predictions of all images; raises the first image's error, with its number.

    Tensors of N rows have no place for an error: clients would read a row of it as an answer.
    """
    predictions = []
    for number, found in enumerate(results, 1):
        if isinstance(found, ServingError):
            raise type(found)(f"Image {number} of {len(results)}: {found}")
        predictions.append(found)
    return predictions
