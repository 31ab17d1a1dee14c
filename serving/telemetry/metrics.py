"""The metrics of the server, in their own registry. Times are in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
)

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from serving.errors import OverCapacityError, ServingError
from serving.inference.engine import Observer, Prediction
from serving.telemetry.histograms import Histogram, Series

# From microseconds, for a small stage or a wait on an idle server, to seconds.
SECONDS = (
    *(2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
CONTENT_TYPE = CONTENT_TYPE_LATEST


@dataclass(frozen=True)
class Totals:
    """What a model has done: requests `answered`, waits of images for a stage, images `decoded` and runs of
    `stages`, each as their number and seconds; requests that `failed`, images answered, batches of the first
    stage, and when the last answer was, in seconds since 1970, 0 without one."""

    answered: tuple[int, float]
    failed: int
    images: int
    batches: int
    waits: tuple[int, float]
    decoded: tuple[int, float]
    stages: tuple[int, float]
    last_answer: float


class Metrics:
    """The metrics of one app. `exit` and `stage` count from 1; stage 0 is decoding.

    Any thread may call any method. Counters are looked up once per set of labels, since the client's own
    lookup costs more than counting.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._child = lru_cache(maxsize=4096)(_child)
        self._last_answer: dict[str, float] = {}
        self._requests = self._counter(
            "requests", "Requests to classify, by outcome: ok or an error's code.", "outcome"
        )
        self._rejected = Counter(
            "offramp_rejected", "Requests refused, by code.", ["reason"], registry=self.registry
        )
        self._duration = self._seconds(
            "request_duration", "From a request's start to its answer; its deepest exit.", "exit"
        )
        self._exits = self._counter("exits", "Images that left at an exit.", "exit")
        self._unsure = self._counter(
            "unsure", "Images that left at an exit without a label, below reject_below.", "exit"
        )
        self._image_errors = self._counter(
            "image_errors",
            "Images of several in a request that got an error in place of a prediction, by code.",
            "code",
        )
        self._confidence = Histogram(
            "offramp_confidence",
            "Calibrated probability of the class answered, by exit.",
            ["model", "exit"],
            CONFIDENCES,
            self.registry,
        )
        self._stage = self._seconds("stage_duration", "One run of a stage, on a batch.", "stage")
        self._batch = Histogram(
            "offramp_stage_batch_size",
            "Images in one run of a stage.",
            ["model", "stage"],
            BATCH_SIZES,
            self.registry,
        )
        self._queue = self._seconds("queue_duration", "An image's wait for a stage.", "stage")
        self._depth = self._gauge("queue_depth", "Images waiting for a stage.", "model", "stage")
        self._decode = Histogram(
            "offramp_decode_duration_seconds",
            "Decoding and resizing one image.",
            ["model"],
            SECONDS,
            self.registry,
        )
        self._invalid = Counter(
            "offramp_invalid_outputs",
            "Images for which a stage gave no logits (NaN or infinite).",
            ["model", "stage"],
            registry=self.registry,
        )
        self._expired = Counter(
            "offramp_expired",
            "Images whose deadline came before their policy let them leave.",
            ["model"],
            registry=self.registry,
        )
        self._threshold = self._gauge(
            "threshold", "The policy's threshold at an exit.", "model", "exit"
        )
        self._certificate = self._gauge(
            "certificate_verified",
            "1 if the policy's certificate was redone from the bundle's table, 0 if it could not be.",
            "model",
        )
        self._revision = self._gauge("policy_revision", "The policy's revision.", "model")
        self._info = self._gauge(
            "model_info", "1 for each loaded model.", "model", "version", "precision", "provider"
        )

    def loaded(self, manifest: Manifest, provider: str) -> None:
        """A model is ready, on onnxruntime's execution provider `provider`."""
        self._info.labels(manifest.name, manifest.version, manifest.precision, provider).set(1)

    def unloaded(self, manifest: Manifest, provider: str) -> None:
        """A model and its policy are no longer served; its counters stay."""
        self._info.remove(manifest.name, manifest.version, manifest.precision, provider)
        self._revision.remove(manifest.name)
        self._certificate.remove(manifest.name)
        for exit_ in range(1, len(manifest.exits)):
            self._threshold.remove(manifest.name, str(exit_))

    def policy(
        self, model: str, policy: Policy, revision: int, certificate_verified: bool | None
    ) -> None:
        """`policy` is in force; `certificate_verified` is None if it has no certificate."""
        if certificate_verified is None:
            self._certificate.remove(model)
        else:
            self._certificate.labels(model).set(certificate_verified)
        for exit_, threshold in enumerate(policy.thresholds, 1):
            self._threshold.labels(model, str(exit_)).set(threshold)
        self._revision.labels(model).set(revision)

    def watch_queue(self, model: str, stage: int, depth: Callable[[], float]) -> None:
        """Report `depth()` as the number of images of `model` that wait for `stage`."""
        # So that the counter is exposed as 0 from the start.
        self._child(self._expired, model)
        self._depth.labels(model, str(stage)).set_function(depth)

    def waited(self, model: str, stage: int, seconds: Iterable[float]) -> None:
        """Images waited for `stage`, for `seconds` each."""
        self._queue.series(model, stage).observe_all(seconds)

    def decoded(self, model: str, seconds: Iterable[float]) -> None:
        """Images were decoded, in `seconds` each."""
        self._decode.series(model).observe_all(seconds)

    def invalid_output(self, model: str, stage: int, images: int) -> None:
        """A stage gave no logits for `images` images."""
        self._child(self._invalid, model, stage).inc(images)

    def expired(self, model: str) -> None:
        """An image's deadline came before its policy let it leave."""
        self._child(self._expired, model).inc()

    def stage_observer(self, model: str) -> Observer:
        """The observer of an engine, called after each stage."""
        found: dict[int, tuple[Series, Series]] = {}

        def observe(stage: int, batch: int, seconds: float) -> None:
            series = found.get(stage)
            if series is None:
                series = (self._stage.series(model, stage), self._batch.series(model, stage))
                found[stage] = series
            series[0].observe(seconds)
            series[1].observe(batch)

        return observe

    def answered(
        self, model: str, results: Sequence[Prediction | ServingError], seconds: float
    ) -> None:
        """A request was answered, `seconds` after its arrival; its outcome is ok if an image was."""
        predictions = [found for found in results if isinstance(found, Prediction)]
        if len(predictions) < len(results):
            errors = [found for found in results if isinstance(found, ServingError)]
            for error in errors:
                self._child(self._image_errors, model, error.code).inc()
            if not predictions:
                self.failed(model, errors[0].code)
                return
        for prediction in predictions:
            self._child(self._exits, model, prediction.exit).inc()
            if prediction.unsure:
                self._child(self._unsure, model, prediction.exit).inc()
            self._confidence.series(model, prediction.exit).observe(prediction.confidence)
        self._last_answer[model] = time.time()
        deepest = max(prediction.exit for prediction in predictions)
        self._duration.series(model, deepest).observe(seconds)
        self._child(self._requests, model, "ok").inc()

    def failed(self, model: str, code: str) -> None:
        """A request to classify failed with the error `code`; `model` is empty if there is no such model."""
        self._child(self._requests, model, code).inc()

    def rejected(self, code: str) -> None:
        """A request to any path was refused: an error of the client, or no capacity."""
        self._child(self._rejected, code).inc()

    def refused_for_load(self, model: str) -> float:
        """Requests of `model` so far that were refused for load."""
        refused = self._child(self._requests, model, OverCapacityError.code)
        return float(next(iter(refused.collect())).samples[0].value)

    def totals(self, model: str) -> Totals:
        """What `model` has done since the start of the process."""
        failed = sum(
            sample.value
            for family in self._requests.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
            and sample.labels["model"] == model
            and sample.labels["outcome"] != "ok"
        )
        batches, _ = self._batch.total(model, 1)
        images, _ = self._confidence.total(model)
        return Totals(
            answered=self._duration.total(model),
            failed=int(failed),
            images=images,
            batches=batches,
            waits=self._queue.total(model),
            decoded=self._decode.total(model),
            stages=self._stage.total(model),
            last_answer=self._last_answer.get(model, 0.0),
        )

    def render(self) -> bytes:
        """The metrics in the exposition format `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"offramp_{name}", text, ["model", label], registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"offramp_{name}", text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, label: str) -> Histogram:
        return Histogram(
            f"offramp_{name}_seconds",
            text,
            ["model", label],
            SECONDS,
            self.registry,
        )


def _child(metric: Any, *labels: object) -> Any:
    return metric.labels(*labels)
