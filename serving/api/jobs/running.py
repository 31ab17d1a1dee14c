"""Running jobs with the models that are loaded, through the scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

import orjson
from fastapi import FastAPI

from exports.bundle.policy import Policy
from serving.api.budgets import BUDGET, costs, settle
from serving.api.jobs.answers import JobQuery, describe_job
from serving.api.query import resolve_policy
from serving.api.schemas import describe_result, resolve_top_k
from serving.budgets.budgets import Reservation
from serving.budgets.clients import ANONYMOUS
from serving.errors import (
    InternalError,
    NotReadyError,
    OverCapacityError,
    ServingError,
    TooLargeError,
)
from serving.jobs.images import StoredImage
from serving.jobs.job import Job, Row
from serving.jobs.metrics import JobMetrics
from serving.jobs.runner import JobRunner
from serving.models.registry import LoadedModel
from serving.periodic import in_background
from serving.scheduling.options import ImageResult, RequestOptions
from serving.service import Service

log = logging.getLogger("offramp.jobs")
# Groups in flight besides one per worker, so that all workers always have batches.
SPARE_GROUPS = 2
# The longest wait before a group that the scheduler refused for load is submitted again.
MAX_RETRY_S = 5.0


@contextlib.asynccontextmanager
async def running_jobs(app: FastAPI, service: Service) -> AsyncIterator[None]:
    """Run the jobs of `service` meanwhile; `app.state.job_runner` is the runner, None without a directory."""
    store, settings = service.jobs, service.settings
    app.state.job_runner = None
    if store is None:
        yield
        return
    metrics = JobMetrics(service.metrics.registry, lambda: store.unfinished, lambda: store.size)
    groups = _Groups(service, metrics)
    runner = app.state.job_runner = JobRunner(
        store,
        metrics,
        groups.classify,
        lambda job: orjson.dumps(describe_job(job, store)),
        groups=settings.workers + SPARE_GROUPS,
        hosts=settings.job_callback_hosts,
        keep_s=settings.jobs_keep_seconds,
        stopping=lambda: service.phase == "draining",
    )
    async with in_background(runner.run()):
        yield


class _Groups:
    """Classifies groups of images of jobs."""

    def __init__(self, service: Service, metrics: JobMetrics) -> None:
        self._service = service
        self._metrics = metrics

    async def classify(
        self, job: Job, first: int, images: Sequence[StoredImage], contents: Sequence[bytes]
    ) -> list[Row]:
        """The rows of `images`, the first of which has the number `first` in `job`.

        The model and its policy are those in force now. Raises NotFoundError or InvalidRequestError if the
        model, its classes or its exits are no longer those that the job was accepted for.
        """
        query = JobQuery(**job.request.query)
        files = [
            content for image, content in zip(images, contents, strict=True) if not image.too_large
        ]
        model = await self._model(query)
        results, rows = iter(await self._predict(job, query, files)), []
        for number, image in enumerate(images, first):
            limited = False
            if image.too_large:
                result: ImageResult = self._too_large()
            else:
                model, result, limited = next(results)
            manifest = model.engine.manifest
            failed = isinstance(result, ServingError)
            self._metrics.image(result.code if isinstance(result, ServingError) else "ok")
            top_k = resolve_top_k(query.top_k, len(manifest.labels))
            content = {
                "image": number,
                "file": image.name,
                "model": manifest.name,
                "version": manifest.version,
                "predictions": [describe_result(result, manifest, top_k)],
            }
            if limited:
                content["limited_by"] = BUDGET
            rows.append(Row(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE), failed))
        return rows

    async def _predict(
        self, job: Job, query: JobQuery, files: Sequence[bytes]
    ) -> list[tuple[LoadedModel, ImageResult, bool]]:
        """For each of `files` the model that was asked, its result, and whether a budget limited it.

        Waits while the scheduler is over capacity. Where one file fails all of a request, as by a fault in a
        stage, each is classified alone.
        """
        while True:
            model = await self._model(query)
            policy, reservation = self._reserve(
                job, model, resolve_policy(query, model), len(files)
            )
            limited = reservation is not None and reservation.limited
            options = RequestOptions(policy, priority="low")
            try:
                result = await self._service.dispatcher.classify(model.engine, files, options)
                if reservation is not None:
                    settle(reservation, model, result.predictions)
                return [(model, found, limited) for found in result.predictions]
            except Exception as error:
                if reservation is not None:
                    reservation.refund()
                if isinstance(error, OverCapacityError):
                    await asyncio.sleep(min(error.retry_after, MAX_RETRY_S))
                    continue
                if len(files) > 1:
                    return [
                        one for file in files for one in await self._predict(job, query, [file])
                    ]
                if isinstance(error, ServingError):
                    return [(model, error, limited)]
                log.exception("an image of job %s failed", job.request.id)
                return [(model, InternalError(), limited)]

    def _reserve(
        self, job: Job, model: LoadedModel, policy: Policy, images: int
    ) -> tuple[Policy, Reservation | None]:
        """The policy for `images` of `job`, no deeper than the budget of its client allows, and what is
        reserved of that."""
        budgets = self._service.budgets
        if budgets is None:
            return policy, None
        client = job.request.client or ANONYMOUS
        reservation = budgets.reserve(client, costs(model), images, policy.max_exit)
        if reservation.exit < policy.max_exit:
            policy = policy.override(max_exit=reservation.exit)
        return policy, reservation

    async def _model(self, query: JobQuery) -> LoadedModel:
        """The model that `query` names; waits while none is loaded. Raises NotFoundError."""
        while True:
            try:
                return self._service.models.get(query.model)
            except NotReadyError:
                await asyncio.sleep(MAX_RETRY_S)

    def _too_large(self) -> TooLargeError:
        limit = self._service.settings.max_body_bytes
        return TooLargeError(f"The image is larger than the {limit} bytes allowed.")
