"""Answering images of the canary with the stable version as well, to compare the classes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import random, randrange

import numpy as np

from exports.bundle.policy import Policy
from serving.canary.canary import Canary
from serving.canary.metrics import CanaryMetrics
from serving.errors import ServingError
from serving.inference.engine import Prediction
from serving.recording.recorder import Images
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import ImageResult, RequestOptions

# Images that are answered at the same time; beyond it those chosen are dropped.
MAX_MIRRORED = 8


class Mirror:
    """Chooses requests at random, and one image of each. Call it on the event loop."""

    def __init__(
        self, dispatcher: Dispatcher, metrics: CanaryMetrics, compared: Callable[[Canary], None]
    ) -> None:
        """`compared` is called after each comparison."""
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._compared = compared
        self._runs: set[asyncio.Task[None]] = set()

    def answered(
        self, canary: Canary, policy: Policy, images: Images, results: Sequence[ImageResult]
    ) -> None:
        """The canary answered a request; the stable version answers under `policy`."""
        number = randrange(len(results))
        found = results[number]
        if random() >= canary.plan.mirror_share or not isinstance(found, Prediction):
            return
        if len(self._runs) >= MAX_MIRRORED:
            self._metrics.mirrored(canary.name, canary.version, "dropped")
            return
        task = asyncio.get_running_loop().create_task(
            self._run(canary, policy, images[number : number + 1], found.index)
        )
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _run(self, canary: Canary, policy: Policy, images: Images, index: int) -> None:
        engine, options = canary.stable.engine, RequestOptions(policy, priority="low")
        try:
            if isinstance(images, np.ndarray):
                result = await self._dispatcher.classify_pixels(engine, images, options)
            else:
                result = await self._dispatcher.classify(engine, images, options)
        except ServingError:
            self._metrics.mirrored(canary.name, canary.version, "dropped")
            return
        (found,) = result.predictions
        # A lone image that fails raises its error.
        assert isinstance(found, Prediction)
        agrees = found.index == index
        canary.mirrored(agrees)
        self._metrics.mirrored(canary.name, canary.version, "agrees" if agrees else "disagrees")
        self._compared(canary)
