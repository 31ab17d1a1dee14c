"""POST /v1/preprocess: the pixels that a network sees of an image."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from exports.bundle.errors import PreprocessingError
from exports.bundle.manifest import Manifest
from exports.bundle.preprocessing.inputs import StageInput, stage_inputs
from serving.api.asgi.disconnect import CancelOnDisconnect
from serving.api.image_bodies import read_one_image
from serving.api.routes.classify import ERRORS, REQUEST_BODY
from serving.api.schemas import ErrorAnswer
from serving.errors import InvalidRequestError, NotFoundError
from serving.inference.engine import decode
from serving.service import ServiceOf

PATH = "/v1/preprocess"
ANSWERS: dict[int | str, dict[str, Any]] = {
    **{status: response for status, response in ERRORS.items() if status != 504},
    200: {
        "description": "The pixels, rounded to eight bits.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    },
    404: {
        "model": ErrorAnswer,
        "description": "No such model, or its bundle does not say how a stage prepares its image.",
    },
}
router = APIRouter(tags=["classify"])


class PreprocessQuery(BaseModel):
    """Which model, and which of its stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="Name of the model; the first one by default.")
    stage: int = Field(1, ge=1, description="A stage that takes the image, from 1.")


@router.post(
    PATH,
    responses=ANSWERS,
    response_class=Response,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def preprocess(
    request: Request, service: ServiceOf, query: Annotated[PreprocessQuery, Query()]
) -> Response:
    """The pixels that a stage's network sees of one image, as PNG."""
    manifest = service.models.get(query.model).engine.manifest
    stage = _stage_input(manifest, query.stage)
    service.dispatcher.check()
    max_pixels = service.settings.max_pixels
    file = await read_one_image(request, service.settings, "Pixels")
    async with CancelOnDisconnect(request):
        png = await service.cam_queue.take(
            lambda: stage.png(decode(file, manifest.input, max_pixels))
        )
    return Response(png, media_type="image/png")


def _stage_input(manifest: Manifest, number: int) -> StageInput:
    """The input of stage `number`. Raises InvalidRequestError if it takes no image, NotFoundError if the
    bundle does not say what it does to that."""
    stages = [k for k, entry in enumerate(manifest.exits, 1) if entry.input == "image"]
    if number not in stages:
        numbers = ", ".join(map(str, stages))
        raise InvalidRequestError(f"stage must be one that takes the image: {numbers}.")
    try:
        return next(one for one in stage_inputs(manifest) if one.stage == number)
    except PreprocessingError as error:
        raise NotFoundError(
            "This model's bundle does not say how its stages prepare their images."
        ) from error
