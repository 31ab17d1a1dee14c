"""Shadows: samples that were answered from an early exit and go on to full depth while nothing else waits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from random import random

import numpy as np

from exports.tuning.search import full_depth
from serving.inference.engine import Engine, Prediction
from serving.scheduling.execution import Batch, Outcome
from serving.scheduling.options import ShadowDrop, ShadowOptions, ShadowResult
from serving.scheduling.queues import Block, Sample, ScheduledRequest
from serving.scheduling.selection import BatchSelector

# Shadows that wait, and the bytes of what they keep.
MAX_WAITING = 64
MAX_BYTES = 64 << 20
# How long one waits for an idle worker.
MAX_WAIT_S = 1.0
# Images that arrive meanwhile wait until a batch of shadows has ended.
MAX_BATCH_S = 5e-3
# The work that shadows may do at once after a time without any.
MAX_SAVED_S = 0.25

_full_depth = lru_cache(maxsize=64)(full_depth)


@dataclass(eq=False, slots=True)
class ShadowRequest(ScheduledRequest):
    """One shadow, which left at exit `exit_` with `prediction`; what it keeps takes `size` bytes.

    It has no `samples`: they would be a reference cycle that keeps the features.
    """

    exit_: int = field(kw_only=True)
    prediction: Prediction = field(kw_only=True)
    options: ShadowOptions = field(kw_only=True)
    size: int = field(kw_only=True)


def shadow_of(
    sample: Sample, options: ShadowOptions, prediction: Prediction, block: Block, row: int
) -> Sample | None:
    """A shadow of `sample`, which leaves its stage with `prediction` and is row `row` of `block`. None if it
    is not chosen, which is random, or has no further stage."""
    engine, stage = sample.request.engine, sample.stage
    if stage >= engine.exits or random() >= options.share:
        return None
    image = sample.image if stage < engine.last_image_stage else None
    request = ShadowRequest(
        engine,
        _full_depth(engine.exits),
        low_priority=True,
        exit_=stage,
        prediction=prediction,
        options=options,
        size=_feature_bytes(engine, stage) + (0 if image is None else image.nbytes),
    )
    return Sample(request, 0, 0, image=image, block=block, row=row, stage=stage + 1)


def separate(shadow: Sample) -> None:
    """Keep the features of `shadow` alone, not those of the batch that it left."""
    block = shadow.block
    assert block is not None
    if block.rows > 1:
        index = np.array([shadow.row])
        inputs = None if block.inputs is None else shadow.request.engine.take(block.inputs, index)
        shadow.block = Block(1, inputs, [values[index] for values in block.logits])
        shadow.row = 0


class ShadowQueue:
    """The shadows that wait, and the work that they may do. Guarded by the scheduler's lock.

    They take at most `max_work` of the seconds of workers that requests take. One worker at a time runs them,
    a stage at a time.
    """

    def __init__(self, max_work: float, selector: BatchSelector) -> None:
        self._max_work = max_work
        self._selector = selector
        self._saved_s = MAX_SAVED_S
        self._waiting: deque[Sample] = deque()
        self._bytes = 0
        self._running = False
        self._closed = False

    def earn(self, seconds: float, now: float) -> None:
        """Requests took `seconds` of a worker, until `now`. Drop what has waited for too long."""
        self._saved_s = min(self._saved_s + self._max_work * seconds, MAX_SAVED_S)
        self._expire(now)

    def close(self) -> None:
        """Drop all shadows, also those that come later."""
        self._closed = True
        self.drop("ended")

    def add(self, shadows: Iterable[Sample], now: float) -> None:
        """Let `shadows` wait, as far as their work and their number allow."""
        for shadow in shadows:
            size = _request(shadow).size
            if self._closed:
                _drop(shadow, "ended")
            elif self._saved_s <= 0:
                _drop(shadow, "cap")
            elif len(self._waiting) >= MAX_WAITING or self._bytes + size > MAX_BYTES:
                _drop(shadow, "full")
            else:
                shadow.enqueued_at = now
                self._waiting.append(shadow)
                self._bytes += size

    def take(self, now: float) -> Batch | None:
        """A batch of the model and stage of the oldest; None while another worker runs one."""
        self._expire(now)
        if self._saved_s <= 0:
            self.drop("cap")
        if self._running or not self._waiting:
            return None
        first = self._waiting[0]
        owner = self._selector.model_queues.get(first.request.engine)
        if owner is None:
            self.drop("ended", first.request.engine)
            return self.take(now)
        alike = [
            one
            for one in self._waiting
            if one.request.engine is first.request.engine and one.stage == first.stage
        ][: owner.costs.best_batch(first.stage)]
        while len(alike) > 1 and owner.seconds(first.stage, len(alike)) > MAX_BATCH_S:
            alike.pop()
        for shadow in alike:
            self._remove(shadow)
        self._running = True
        self._selector.free_workers -= 1
        return Batch(owner, first.stage, alike, now, shadow=True)

    def complete(self, batch: Batch, outcome: Outcome, now: float) -> None:
        """Report the shadows that have reached full depth, and let the others wait for their next stage."""
        elapsed = now - batch.started_at
        self._running = False
        self._saved_s -= elapsed
        batch.queues.busy_s[True] += elapsed
        for row, shadow in enumerate(batch.samples):
            deepest = outcome.predictions[row]
            if row in outcome.errors:
                _drop(shadow, "failed")
            elif outcome.leaves[row] and deepest is not None:
                _report(shadow, deepest)
            elif self._closed:
                _drop(shadow, "ended")
            else:
                shadow.stage += 1
                shadow.block, shadow.row = outcome.block, row
                if shadow.stage > shadow.request.engine.last_image_stage:
                    shadow.image = None
                shadow.enqueued_at = now
                self._waiting.append(shadow)
                self._bytes += _request(shadow).size

    def drop(self, reason: ShadowDrop, engine: Engine | None = None) -> None:
        """Drop all shadows, or those of `engine`."""
        for shadow in list(self._waiting):
            if engine is None or shadow.request.engine is engine:
                self._remove(shadow)
                _drop(shadow, reason)

    def _expire(self, now: float) -> None:
        # They are in the order in which they came, whatever their stage.
        while self._waiting and now - self._waiting[0].enqueued_at > MAX_WAIT_S:
            shadow = self._waiting[0]
            self._remove(shadow)
            _drop(shadow, "busy")

    def _remove(self, shadow: Sample) -> None:
        self._waiting.remove(shadow)
        self._bytes -= _request(shadow).size


def _request(shadow: Sample) -> ShadowRequest:
    request = shadow.request
    assert isinstance(request, ShadowRequest)
    return request


def _report(shadow: Sample, deepest: Prediction) -> None:
    request = _request(shadow)
    first = request.prediction
    request.options.report(
        ShadowResult(request.exit_, first.measured, first.index == deepest.index)
    )


def _drop(shadow: Sample, reason: ShadowDrop) -> None:
    shadow.block = shadow.image = None
    _request(shadow).options.dropped(reason)


def _feature_bytes(engine: Engine, stage: int) -> int:
    """The bytes of the features of one sample after stage `stage`, 0 without any."""
    entry = engine.manifest.exits[stage - 1]
    if entry.feature_shape is None:
        return 0
    return math.prod(entry.feature_shape) * np.dtype(entry.feature_type).itemsize
