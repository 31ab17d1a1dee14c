"""Recording every answer, and running all exits for a random share of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from random import random

import numpy as np

from exports.bundle.policy import Policy
from serving.errors import ServingError
from serving.inference.engine import Prediction
from serving.models.registry import LoadedModel
from serving.recording.metrics import RecordingMetrics
from serving.recording.recorder import Images, Recorder
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import ImageResult, RequestOptions

# Requests that run all exits at the same time; beyond it the chosen ones are skipped.
MAX_FULL_RUNS = 8


class FullDepthSampler:
    """Records answers, and runs a share of the requests again to full depth, at low priority.

    Requests are chosen at random, whatever their answer. Call it on the event loop.
    """

    def __init__(
        self, recorder: Recorder, dispatcher: Dispatcher, metrics: RecordingMetrics, share: float
    ) -> None:
        self.recorder = recorder
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._share = share
        self._runs: set[asyncio.Task[None]] = set()

    def answered(
        self,
        request_id: str,
        model: LoadedModel,
        policy: Policy,
        images: Images,
        results: Sequence[ImageResult],
    ) -> None:
        """Record an answer under `policy`; the predictions have their logits."""
        manifest, answered = model.engine.manifest, datetime.now(UTC)
        predictions = [one for one in results if isinstance(one, Prediction)]
        whole = _runs_all_exits(policy) and all(p.exit == policy.exits for p in predictions)
        self.recorder.record(request_id, answered, manifest, results, images, sampled=whole)
        if whole or random() >= self._share:
            return
        if len(self._runs) >= MAX_FULL_RUNS:
            self._metrics.dropped("busy", len(predictions))
            return
        run = self._run(request_id, answered, model, policy, images, results)
        task = asyncio.get_running_loop().create_task(run)
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _run(
        self,
        request_id: str,
        answered: datetime,
        model: LoadedModel,
        policy: Policy,
        images: Images,
        results: Sequence[ImageResult],
    ) -> None:
        full = Policy(mode="ensemble", thresholds=policy.thresholds, max_exit=policy.exits)
        options = RequestOptions(full, priority="low")
        try:
            if isinstance(images, np.ndarray):
                result = await self._dispatcher.classify_pixels(model.engine, images, options)
            else:
                result = await self._dispatcher.classify(model.engine, images, options)
        except ServingError:
            self._metrics.dropped("busy", len(results))
            return
        found = [
            replace(deep, exit=first.exit)
            if isinstance(deep, Prediction) and isinstance(first, Prediction)
            else deep
            for deep, first in zip(result.predictions, results, strict=True)
        ]
        manifest = model.engine.manifest
        self.recorder.record(request_id, answered, manifest, found, None, sampled=True)


def _runs_all_exits(policy: Policy) -> bool:
    """Whether every sample runs all exits, whatever its logits."""
    if policy.max_exit < policy.exits:
        return False
    return policy.mode != "early_exit" or all(threshold > 1 for threshold in policy.thresholds)
