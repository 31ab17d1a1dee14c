"""POST /v1/feedback: what was right, for a recorded request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from exports.tuning.requests.recorded import key_of, network_hash
from serving.api.schemas import ErrorAnswer
from serving.errors import InvalidRequestError, NotFoundError, NotRecordingError
from serving.models.registry import LoadedModel
from serving.service import Service, ServiceOf

PATH = "/v1/feedback"
MAX_ID_CHARS = 128
MAX_LABEL_CHARS = 1024
RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body is malformed, or there is no such class."},
    404: {"model": ErrorAnswer, "description": "No such request is recorded."},
    409: {"model": ErrorAnswer, "description": "The server does not record requests."},
    503: {"model": ErrorAnswer, "description": "The records cannot be read or written now."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}
router = APIRouter(tags=["classify"])


def _label(label: Any, check: ValidatorFunctionWrapHandler) -> str | int:
    """The errors of the union would name its alternatives."""
    try:
        found: str | int = check(label)
    except ValidationError as error:
        raise ValueError(
            f"it must be the name of a class, of at most {MAX_LABEL_CHARS} characters, or its index"
        ) from error
    return found


Label = Annotated[
    Annotated[StrictStr, Field(max_length=MAX_LABEL_CHARS)] | StrictInt, WrapValidator(_label)
]


class Feedback(BaseModel):
    """The right class of an image that was answered."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[StrictStr, Field(min_length=1, max_length=MAX_ID_CHARS)] = Field(
        description="X-Request-ID of the answer."
    )
    label: Label = Field(description="Name or index of the class.")
    image: Annotated[StrictInt, Field(ge=0, lt=2**31)] = Field(
        0, description="Which image of the request, from 0."
    )


class FeedbackAnswer(BaseModel):
    """The label that is stored."""

    id: str
    image: int
    label: str
    index: int


@router.post(PATH, responses=RESPONSES)
async def feedback(content: Feedback, service: ServiceOf) -> FeedbackAnswer:
    """Store the right class of a recorded image, in place of an earlier one."""
    if service.recording is None:
        raise NotRecordingError("The server does not record requests; start it with --record.")
    recorder = service.recording.recorder
    record = await recorder.find(content.id, content.image)
    if record is None:
        raise NotFoundError("No such image is recorded under this id.")
    labels = _model(service, record).engine.manifest.labels
    index = _index(content.label, labels)
    if not await recorder.label(key_of(record), index):
        raise NotFoundError("The record of this image was removed.")
    return FeedbackAnswer(id=content.id, image=content.image, label=labels[index], index=index)


def _model(service: Service, record: dict[str, Any]) -> LoadedModel:
    """The model whose network answered; raises NotFoundError if it is no longer loaded."""
    for model in service.models:
        if network_hash(model.engine.manifest) == record["network"]:
            return model
    raise NotFoundError("The network that answered this request is no longer loaded.")


def _index(label: str | int, labels: tuple[str, ...]) -> int:
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    if isinstance(label, int) and 0 <= label < len(labels):
        return label
    raise InvalidRequestError("The label is neither a class's name nor its index.")
