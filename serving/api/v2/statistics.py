"""Statistics of models as Triton's extension has them, which perf_analyzer asks for.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
They are the server's metrics in another form, since its start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import APIRouter

from serving.api.v2.common import ANY_ERROR, MODEL, NO_MODEL, PREFIX, VERSION, Named, Versioned
from serving.models.registry import LoadedModel
from serving.service import Service, ServiceOf

NS_PER_S = 1_000_000_000
MS_PER_S = 1000
router = APIRouter()


@dataclass(frozen=True)
class Duration:
    """How many there were, and the nanoseconds of all of them."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True)
class InferenceStatistics:
    """Requests that were answered (`success`) or failed, images' waits, decoding of images (`compute_input`),
    and runs of stages on batches (`compute_infer`). Failures have no time; there is no cache."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


@dataclass(frozen=True)
class ModelStatistics:
    """A model's statistics: `last_inference` in milliseconds since 1970, 0 if there was none; images answered
    (`inference_count`), and batches that the first stage ran on (`execution_count`)."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[Duration]


@dataclass(frozen=True)
class Statistics:
    """The statistics of some models."""

    model_stats: list[ModelStatistics]


@router.get(PREFIX + "/models/stats", responses=ANY_ERROR)
async def statistics(service: ServiceOf) -> Statistics:
    """Statistics of all models."""
    return _statistics(service.models, service)


@router.get(MODEL + "/stats", responses=NO_MODEL)
async def model_statistics(model: Named, service: ServiceOf) -> Statistics:
    """Statistics of a model."""
    return _statistics([model], service)


@router.get(VERSION + "/stats", responses=NO_MODEL)
async def model_version_statistics(model: Versioned, service: ServiceOf) -> Statistics:
    """Statistics of a model, if it has this version."""
    return _statistics([model], service)


def _statistics(models: Iterable[LoadedModel], service: Service) -> Statistics:
    return Statistics([_of_model(model, service) for model in models])


def _of_model(model: LoadedModel, service: Service) -> ModelStatistics:
    totals = service.metrics.totals(model.name)
    return ModelStatistics(
        name=model.name,
        version=model.engine.manifest.version,
        last_inference=int(totals.last_answer * MS_PER_S),
        inference_count=totals.images,
        execution_count=totals.batches,
        inference_stats=InferenceStatistics(
            success=_duration(totals.answered),
            fail=Duration(totals.failed),
            queue=_duration(totals.waits),
            compute_input=_duration(totals.decoded),
            compute_infer=_duration(totals.stages),
            compute_output=Duration(),
            cache_hit=Duration(),
            cache_miss=Duration(),
        ),
        batch_stats=[],
    )


def _duration(total: tuple[int, float]) -> Duration:
    count, seconds = total
    return Duration(count, int(seconds * NS_PER_S))
