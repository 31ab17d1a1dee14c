"""The JSON that goes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exports.bundle.manifest import Conversion, Manifest
from exports.bundle.policy import Policy
from serving.errors import InvalidRequestError
from serving.inference.engine import Prediction, Reason
from serving.models.registry import LoadedModel
from serving.scheduling.options import BatchResult, ExitReached

DEFAULT_TOP_K = 5
DIGITS = 6


@dataclass(frozen=True)
class Candidate:
    """One class and its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class PredictionAnswer:
    """One image's answer: the class, the confidence, the exit it left at, of how many, and why there:
    it was confident, it was the deepest exit allowed, or the deadline left no time to go on."""

    label: str
    index: int
    confidence: float
    exit: int
    exits: int
    reason: Reason
    top_k: list[Candidate]


@dataclass(frozen=True)
class ExitEvent:
    """An image, from 0, reached an exit, and whether that is its answer. `elapsed_ms` counts from the
    request's start, `macs` are the multiply-accumulates spent on the image so far."""

    image: int
    exit: int
    exits: int
    left: bool
    label: str
    index: int
    confidence: float
    top_k: list[Candidate]
    elapsed_ms: float
    macs: int


@dataclass(frozen=True)
class Timing:
    """Where a request's time went, in milliseconds; of several images, the one answered last tells
    decoding, waiting in queues and computing."""

    decode: float
    queue: float
    compute: float
    total: float


@dataclass(frozen=True)
class ClassifyAnswer:
    """The answer of POST /v1/classify: a prediction for each image, in their order."""

    model: str
    version: str
    predictions: list[PredictionAnswer]
    timing_ms: Timing


@dataclass(frozen=True)
class ErrorAnswer:
    """Every error's form: one sentence, and a code for programs."""

    error: str
    code: str


@dataclass(frozen=True)
class InputAnswer:
    """The size images are brought to, in pixels, and how."""

    height: int
    width: int
    resize: str


@dataclass(frozen=True)
class ExitAnswer:
    """An exit: top-1 accuracy in percent on the test split, alone and with all exits before it, and
    what leaving here costs, in multiply-accumulates and parameters."""

    exit: int
    accuracy: float
    running_accuracy: float
    macs: int
    params: int


@dataclass(frozen=True)
class PolicyAnswer:
    """The policy in force and its revision."""

    revision: int
    policy: Policy


@dataclass(frozen=True)
class ModelSummary:
    """A loaded model; `classes` is how many labels it tells apart, `maps` whether it offers
    class-activation maps."""

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


@dataclass(frozen=True)
class ModelDetail(ModelSummary):
    """A loaded model with its labels, in the order of `index`, and how it came below float32 if it did."""

    labels: list[str]
    conversion: Conversion | None


@dataclass(frozen=True)
class ModelList:
    """The loaded models; the first one answers requests that name none."""

    models: list[ModelSummary]


def resolve_top_k(wanted: int | None, classes: int) -> int:
    """How many candidates to list; raises InvalidRequestError if more are wanted than there are."""
    if wanted is None:
        return min(DEFAULT_TOP_K, classes)
    if not 1 <= wanted <= classes:
        raise InvalidRequestError(f"top_k must be between 1 and {classes}, not {wanted}.")
    return wanted


def describe(prediction: Prediction, manifest: Manifest, top_k: int) -> PredictionAnswer:
    """`prediction` with labels, and its `top_k` likeliest classes, the likeliest first."""
    return PredictionAnswer(
        label=manifest.labels[prediction.index],
        index=prediction.index,
        confidence=round(prediction.confidence, DIGITS),
        exit=prediction.exit,
        exits=len(manifest.exits),
        reason=prediction.reason,
        top_k=_candidates(prediction, manifest, top_k),
    )


def compose(model: LoadedModel, result: BatchResult, top_k: int, spent: Timing) -> ClassifyAnswer:
    """The answer to a request that `result` came of."""
    manifest = model.engine.manifest
    predictions = [describe(found, manifest, top_k) for found in result.predictions]
    return ClassifyAnswer(manifest.name, manifest.version, predictions, spent)


def describe_exit(
    reached: ExitReached, manifest: Manifest, top_k: int, elapsed: float
) -> ExitEvent:
    """`reached`, `elapsed` seconds after its request's start, as an event of the stream."""
    prediction = reached.prediction
    return ExitEvent(
        image=reached.image,
        exit=prediction.exit,
        exits=len(manifest.exits),
        left=reached.left,
        label=manifest.labels[prediction.index],
        index=prediction.index,
        confidence=round(prediction.confidence, DIGITS),
        top_k=_candidates(prediction, manifest, top_k),
        elapsed_ms=round(1000 * elapsed, 3),
        macs=manifest.exits[prediction.exit - 1].macs,
    )


def timing(result: BatchResult, total: float) -> Timing:
    """`result`'s times and the `total` in milliseconds."""
    seconds = (result.decode, result.queue, result.compute, total)
    return Timing(*(round(1000 * value, 3) for value in seconds))


def _candidates(prediction: Prediction, manifest: Manifest, top_k: int) -> list[Candidate]:
    best = np.argsort(-prediction.probabilities, kind="stable")[:top_k].tolist()
    chances = prediction.probabilities[best].tolist()
    return [
        Candidate(manifest.labels[i], i, round(chance, DIGITS))
        for i, chance in zip(best, chances, strict=True)
    ]


def summarize(model: LoadedModel) -> ModelSummary:
    """What /v1/models tells of `model`."""
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
    )


def detail(model: LoadedModel) -> ModelDetail:
    """What /v1/models/{m} tells of `model`."""
    manifest = model.engine.manifest
    return ModelDetail(
        **vars(summarize(model)), labels=list(manifest.labels), conversion=manifest.conversion
    )
