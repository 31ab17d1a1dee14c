"""POST /v1/classify/maps: class-activation maps of every exit."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from serving.api.asgi.disconnect import CancelOnDisconnect
from serving.api.image_bodies import read_one_image
from serving.api.routes.classify import ERRORS, REQUEST_BODY
from serving.api.schemas import ErrorAnswer
from serving.errors import InvalidRequestError, NotFoundError
from serving.inference.engine import Prediction
from serving.scheduling.options import RequestOptions
from serving.service import ServiceOf

PATH = "/v1/classify/maps"
DIGITS = 3
REFUSALS: dict[int | str, dict[str, Any]] = {
    **{status: response for status, response in ERRORS.items() if status != 504},
    404: {"model": ErrorAnswer, "description": "No such model, or its bundle offers no maps."},
    409: {
        "model": ErrorAnswer,
        "description": "The bundle's maps are not those it was loaded with.",
    },
}
router = APIRouter(tags=["classify"])


class MapsQuery(BaseModel):
    """Which model, and which class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="Name of the model; the first one by default.")
    class_: str | None = Field(
        None,
        alias="class",
        description="A label or an index; the answer's class by default.",
    )


class ClassAnswer(BaseModel):
    """The class of the maps."""

    label: str
    index: int


class ExitMap(BaseModel):
    """One exit's map: `height` x `width` values, row by row, from 0 (no evidence) to 1 (the map's peak).
    Equal cells cover the image as the network gets it."""

    exit: int
    height: int
    width: int
    values: list[float]


class MapsAnswer(BaseModel):
    """The answer of POST /v1/classify/maps."""

    model: str
    of: ClassAnswer = Field(serialization_alias="class")
    exits: list[ExitMap]


@router.post(PATH, responses=REFUSALS, openapi_extra={"requestBody": REQUEST_BODY})
async def classify_maps(
    request: Request, service: ServiceOf, query: Annotated[MapsQuery, Query()]
) -> MapsAnswer:
    """Class-activation maps: where every exit finds evidence for a class in one image."""
    model = service.models.get(query.model)
    cam, labels = model.cam, model.engine.manifest.labels
    if cam is None:
        raise NotFoundError("This model's bundle offers no maps.")
    index = None if query.class_ is None else _index(query.class_, labels)
    service.dispatcher.check()
    max_pixels = service.settings.max_pixels
    file = await read_one_image(request, service.settings, "Maps")
    async with CancelOnDisconnect(request):
        if index is None:
            done = await service.dispatcher.classify(
                model.engine, [file], RequestOptions(model.policy)
            )
            (prediction,) = done.predictions
            # A lone image that fails raises its error.
            assert isinstance(prediction, Prediction)
            index = prediction.index
        chosen = index
        drawn = await service.cam_queue.take(lambda: cam.draw(file, chosen, max_pixels))
    return MapsAnswer(
        model=model.name,
        of=ClassAnswer(label=labels[chosen], index=chosen),
        exits=[
            ExitMap(
                exit=k,
                height=values.shape[0],
                width=values.shape[1],
                values=[round(value, DIGITS) for value in values.ravel().tolist()],
            )
            for k, values in enumerate(drawn, 1)
        ],
    )


def _index(name: str, labels: tuple[str, ...]) -> int:
    """The index of the label `name`, or `name` as an index; raises InvalidRequestError."""
    if name in labels:
        return labels.index(name)
    if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(labels):
        return int(name)
    raise InvalidRequestError(
        f"class must be a label of the model or an index from 0 to {len(labels) - 1}."
    )
