"""The server's answers as dataclasses. Fields that a newer server adds are ignored."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from offramp.client.errors import ClientError

T = TypeVar("T")
Reason = Literal["confident", "max_exit", "deadline", "unsure"]


@dataclass(frozen=True)
class Candidate:
    """A class and its calibrated probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Measure:
    """The measure that the policy compares with its thresholds, and its value at an exit."""

    name: str
    value: float


@dataclass(frozen=True)
class Prediction:
    """An image's answer. `label` and `index` are None if `reason` is unsure; `confidence` is the calibrated
    probability of the likeliest class, and `exit` where the image left, from 1 to `exits`."""

    label: str | None
    index: int | None
    confidence: float
    exit: int
    exits: int
    reason: Reason
    measure: Measure
    top_k: tuple[Candidate, ...]


@dataclass(frozen=True)
class ImageError:
    """Why an image of several has no prediction: a sentence, and a code for programs."""

    error: str
    code: str


@dataclass(frozen=True)
class Timing:
    """A request's time in the server, in milliseconds."""

    decode: float
    queue: float
    compute: float
    total: float


@dataclass(frozen=True)
class Answer:
    """The answer to a request: for each image, in order, a prediction or an error. `limited_by` is `budget`
    if the client's budget kept images from going deeper, else None."""

    model: str
    version: str
    predictions: tuple[Prediction | ImageError, ...]
    timing_ms: Timing
    limited_by: str | None = None


@dataclass(frozen=True)
class ExitReached:
    """An event of a stream: the image has reached an exit, with the answer as it would be there. `left` is
    whether it is the answer. `elapsed_ms` is since the request's start; `compute_ms` is the time in stages
    and `macs` the multiply-accumulates spent on the image so far."""

    exit: int
    exits: int
    left: bool
    label: str | None
    index: int | None
    confidence: float
    measure: Measure
    top_k: tuple[Candidate, ...]
    elapsed_ms: float
    compute_ms: float
    macs: int


@dataclass(frozen=True)
class Model:
    """A loaded model; `classes` is the number of labels, `exits` that of exits."""

    name: str
    version: str
    classes: int
    exits: int
    precision: str
    policy_revision: int


def read_json(content: bytes | str) -> Any:
    """The value of a JSON text; raises ClientError."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise ClientError("The server's answer is not JSON.") from error


def read_answer(content: bytes | str) -> Answer:
    """The answer of POST /v1/classify; raises ClientError if it is another."""
    data = read_json(content)
    entries = tuple(_entry(entry) for entry in _value(data, "predictions"))
    spent = _pick(Timing, _value(data, "timing_ms"))
    limited_by = data.get("limited_by")
    return _pick(Answer, data, predictions=entries, timing_ms=spent, limited_by=limited_by)


def read_exit(content: str) -> ExitReached:
    """The data of an event `exit`; raises ClientError if it is another's."""
    data = read_json(content)
    return _pick(ExitReached, data, measure=_measure(data), top_k=_candidates(data))


def read_models(content: bytes) -> list[Model]:
    """The answer of GET /v1/models; raises ClientError if it is another."""
    models = _value(read_json(content), "models")
    return [_pick(Model, model, exits=len(_value(model, "exits"))) for model in models]


def _entry(data: Any) -> Prediction | ImageError:
    if isinstance(data, dict) and "error" in data:
        return _pick(ImageError, data)
    return _pick(Prediction, data, measure=_measure(data), top_k=_candidates(data))


def _measure(data: Any) -> Measure:
    return _pick(Measure, _value(data, "measure"))


def _candidates(data: Any) -> tuple[Candidate, ...]:
    return tuple(_pick(Candidate, entry) for entry in _value(data, "top_k"))


def _pick(kind: type[T], data: Any, **known: Any) -> T:
    """A dataclass of the fields in `data`, except those in `known`."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: known[name] if name in known else _value(data, name) for name in names})


def _value(data: Any, name: str) -> Any:
    if not isinstance(data, dict) or name not in data:
        raise ClientError(f"The server's answer has no {name}; is it an Offramp server?")
    return data[name]
