"""The JSON of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exports.bundle.manifest import Conversion, Manifest
from exports.bundle.policy import Measure, Policy
from serving.errors import InvalidRequestError, ServingError
from serving.inference.engine import Prediction, Reason
from serving.models.registry import LoadedModel
from serving.scheduling.options import BatchResult, ExitReached, ImageResult

DEFAULT_TOP_K = 5
DIGITS = 6


@dataclass
class Candidate:
    """One class and its probability."""

    label: str
    index: int
    probability: float


@dataclass
class MeasureAnswer:
    """The measure that the policy compares with its thresholds, and its value at an exit, in [0, 1]."""

    name: Measure
    value: float


@dataclass
class PredictionAnswer:
    """One image's answer: its class, the calibrated probability of that class as `confidence`, the exit it
    left at and the number of exits, why it left (the policy's measure reached the threshold, this is the
    deepest exit allowed, or the deadline came), and the policy's measure at that exit. If the confidence is
    below the policy's `reject_below`, `reason` is unsure, and label and index are null."""

    label: str | None
    index: int | None
    confidence: float
    exit: int
    exits: int
    reason: Reason
    measure: MeasureAnswer
    top_k: list[Candidate]


@dataclass(frozen=True)
class ExitEvent:
    """An image reached an exit. `image` counts from 0; `left` is whether this is its answer; class,
    confidence and measure are those of an answer here; `elapsed_ms` is since the request's start;
    `compute_ms` is the time in stages and `macs` the multiply-accumulates spent on the image so far."""

    image: int
    exit: int
    exits: int
    left: bool
    label: str | None
    index: int | None
    confidence: float
    measure: MeasureAnswer
    top_k: list[Candidate]
    elapsed_ms: float
    compute_ms: float
    macs: int


@dataclass
class Timing:
    """A request's time in milliseconds. With several images, decode, queue and compute are those of the image
    that was answered last."""

    decode: float
    queue: float
    compute: float
    total: float


@dataclass(frozen=True)
class ErrorAnswer:
    """An error: one sentence, and a code for programs."""

    error: str
    code: str


@dataclass(frozen=True)
class ImageErrorEvent:
    """An image of several got an error in place of a prediction; `image` counts from 0."""

    image: int
    error: str
    code: str


@dataclass
class ClassifyAnswer:
    """The answer of POST /v1/classify: for each image, in order, a prediction or an error."""

    model: str
    version: str
    predictions: list[PredictionAnswer | ErrorAnswer]
    timing_ms: Timing


@dataclass
class LimitedAnswer(ClassifyAnswer):
    """An answer that the client's budget kept from going deeper."""

    limited_by: Literal["budget"] = "budget"


@dataclass(frozen=True)
class InputAnswer:
    """The size that images are resized to, in pixels, and how."""

    height: int
    width: int
    resize: str


@dataclass(frozen=True)
class ExitAnswer:
    """An exit: top-1 accuracy in percent on the test split, alone and as running ensemble, and the
    multiply-accumulates and parameters of leaving here."""

    exit: int
    accuracy: float
    running_accuracy: float
    macs: int
    params: int


@dataclass(frozen=True)
class PolicyAnswer:
    """The policy in force and its revision; whether its certificate was redone from the bundle's calibration
    table, false if it is not verified here, null if there is none."""

    revision: int
    policy: Policy
    certificate_verified: bool | None


@dataclass(frozen=True)
class ModelSummary:
    """A loaded model; `classes` is the number of labels, `maps` whether it has class-activation maps;
    the certificate is that of the policy, as in PolicyAnswer."""

    name: str
    version: str
    classes: int
    input: InputAnswer
    precision: str
    provider: str
    exits: list[ExitAnswer]
    maps: bool
    policy: Policy
    policy_revision: int
    certificate_verified: bool | None


@dataclass(frozen=True)
class ModelDetail(ModelSummary):
    """A loaded model with its labels, in the order of `index`, and how it was converted from float32, if it
    was. `unsaved_policy` was in force until this bundle replaced another; it was not saved and is not in
    force any more."""

    labels: list[str]
    conversion: Conversion | None
    unsaved_policy: Policy | None


@dataclass(frozen=True)
class ModelList:
    """The loaded models; the first one answers requests that name none."""

    models: list[ModelSummary]


def resolve_top_k(top_k: int | None, classes: int) -> int:
    """How many candidates to list; raises InvalidRequestError if there are fewer classes."""
    if top_k is None:
        return min(DEFAULT_TOP_K, classes)
    if not 1 <= top_k <= classes:
        raise InvalidRequestError(f"top_k must be between 1 and {classes}, not {top_k}.")
    return top_k


def describe(prediction: Prediction, manifest: Manifest, top_k: int) -> PredictionAnswer:
    """`prediction` with labels, and its `top_k` most probable classes, the most probable first."""
    return PredictionAnswer(
        label=None if prediction.unsure else manifest.labels[prediction.index],
        index=None if prediction.unsure else prediction.index,
        confidence=round(prediction.confidence, DIGITS),
        exit=prediction.exit,
        exits=len(manifest.exits),
        reason=prediction.reason,
        measure=_measure(prediction),
        top_k=_candidates(prediction, manifest, top_k),
    )


def describe_result(
    result: ImageResult, manifest: Manifest, top_k: int
) -> PredictionAnswer | ErrorAnswer:
    """An image's entry in an answer."""
    if isinstance(result, ServingError):
        return ErrorAnswer(str(result), result.code)
    return describe(result, manifest, top_k)


def compose(
    model: LoadedModel, result: BatchResult, top_k: int, spent: Timing, *, limited: bool
) -> ClassifyAnswer:
    """The answer to a request whose result is `result`; `limited` is whether by a budget."""
    manifest = model.engine.manifest
    predictions = [describe_result(found, manifest, top_k) for found in result.predictions]
    kind = LimitedAnswer if limited else ClassifyAnswer
    return kind(manifest.name, manifest.version, predictions, spent)


def describe_exit(
    reached: ExitReached, manifest: Manifest, top_k: int, elapsed: float
) -> ExitEvent:
    """`reached` as an event of the stream, `elapsed` seconds after the request's start."""
    prediction = reached.prediction
    return ExitEvent(
        image=reached.image,
        exit=prediction.exit,
        exits=len(manifest.exits),
        left=reached.left,
        label=None if prediction.unsure else manifest.labels[prediction.index],
        index=None if prediction.unsure else prediction.index,
        confidence=round(prediction.confidence, DIGITS),
        measure=_measure(prediction),
        top_k=_candidates(prediction, manifest, top_k),
        elapsed_ms=round(1000 * elapsed, 3),
        compute_ms=round(1000 * reached.compute, 3),
        macs=manifest.exits[prediction.exit - 1].macs,
    )


def timing(result: BatchResult, total: float) -> Timing:
    """The times of `result` and the `total`, all in seconds, as milliseconds."""
    seconds = (result.decode, result.queue, result.compute, total)
    return Timing(*(round(1000 * value, 3) for value in seconds))


def _measure(prediction: Prediction) -> MeasureAnswer:
    return MeasureAnswer(prediction.measure, round(prediction.measured, DIGITS))


def _candidates(prediction: Prediction, manifest: Manifest, top_k: int) -> list[Candidate]:
    probabilities, labels = prediction.probabilities, manifest.labels
    best: list[int] = (-probabilities).argsort(kind="stable")[:top_k].tolist()
    return [Candidate(labels[i], i, round(probabilities.item(i), DIGITS)) for i in best]


def summarize(model: LoadedModel) -> ModelSummary:
    """`model` as in the list of GET /v1/models."""
    manifest = model.engine.manifest
    spec = manifest.input
    return ModelSummary(
        name=manifest.name,
        version=manifest.version,
        classes=len(manifest.labels),
        input=InputAnswer(spec.height, spec.width, spec.resize),
        precision=manifest.precision,
        provider=model.engine.provider,
        exits=[
            ExitAnswer(k, entry.test.single, entry.test.running, entry.macs, entry.params)
            for k, entry in enumerate(manifest.exits, 1)
        ],
        maps=model.cam is not None,
        policy=model.policy,
        policy_revision=model.revision,
        certificate_verified=model.certificate_verified,
    )


def detail(model: LoadedModel) -> ModelDetail:
    """`model` as GET /v1/models/{name} answers it."""
    manifest = model.engine.manifest
    return ModelDetail(
        **vars(summarize(model)),
        labels=list(manifest.labels),
        conversion=manifest.conversion,
        unsaved_policy=model.unsaved_policy,
    )
