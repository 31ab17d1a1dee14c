"""From files' bytes to predictions, off the event loop.

This is the seam for a scheduler that batches across requests: it takes the place of `Work` and
drives `Engine.run_stage` and `Engine.decide` itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle import InputSpec
from exports.policy import Policy
from serving.engine import Engine, Prediction
from serving.errors import InvalidImageError, OverCapacityError
from serving.images import decode
from serving.metrics import Metrics


@dataclass(frozen=True)
class Done:
    """A request's predictions, one per image, and where its time went, in seconds."""

    predictions: list[Prediction]
    queue: float
    decode: float
    compute: float


class Work:
    """Worker threads behind a bounded queue. `classify` and `pending` belong to the event loop."""

    def __init__(
        self, *, workers: int, max_pending: int, max_pixels: int, metrics: Metrics
    ) -> None:
        self.pending = 0
        self._max_pending = max_pending
        self._max_pixels = max_pixels
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="offramp-work")

    async def classify(self, engine: Engine, files: Sequence[bytes], policy: Policy) -> Done:
        """Decode `files` and classify them as one batch, in a worker.

        Raises OverCapacityError at once if they do not fit in the queue, InvalidImageError if one of them
        cannot be decoded.
        """
        if self.pending + len(files) > self._max_pending:
            raise OverCapacityError(
                "The server has as many images waiting as it allows; try again."
            )
        self.pending += len(files)
        self._metrics.queue_depth.inc(len(files))
        submitted = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, self._job, engine, files, policy, submitted
            )
        finally:
            self.pending -= len(files)

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        self._executor.shutdown(wait=True)

    def _job(
        self, engine: Engine, files: Sequence[bytes], policy: Policy, submitted: float
    ) -> Done:
        started = time.perf_counter()
        self._metrics.queue_depth.dec(len(files))
        self._metrics.queue_duration.observe(started - submitted)
        images = np.stack(
            [
                self._decode(file, engine.manifest.input, number, len(files))
                for number, file in enumerate(files, 1)
            ]
        )
        decoded = time.perf_counter()
        predictions = engine.classify(images, policy)
        computed = time.perf_counter()
        return Done(predictions, started - submitted, decoded - started, computed - decoded)

    def _decode(self, file: bytes, spec: InputSpec, number: int, count: int) -> NDArray[np.uint8]:
        started = time.perf_counter()
        try:
            pixels = decode(file, spec, self._max_pixels)
        except InvalidImageError as error:
            if count == 1:
                raise
            raise InvalidImageError(f"Image {number} of {count}: {error}") from error
        self._metrics.decode_duration.observe(time.perf_counter() - started)
        return pixels
