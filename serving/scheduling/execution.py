"""A batch in a worker: decoding files, or running a stage and judging who leaves."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np

from offramp.images import Pixels
from serving.errors import InvalidImageError
from serving.inference.engine import Prediction
from serving.inference.images import decode
from serving.scheduling.queues import ModelQueues
from serving.scheduling.samples import Block, Sample, gather
from serving.telemetry.metrics import Metrics

log = logging.getLogger("offramp.serving")


@dataclass(eq=False, slots=True)
class Batch:
    """Samples of one engine that run stage `stage` together, 0 for decoding; taken at `taken`."""

    queues: ModelQueues
    stage: int
    samples: list[Sample]
    taken: float


@dataclass(eq=False, slots=True)
class Outcome:
    """What a batch came to: what the samples carry on, which of them leave, the predictions that
    someone wants, and errors by row."""

    block: Block | None
    leaves: list[bool]
    predictions: list[Prediction | None]
    errors: dict[int, Exception]


def run(batch: Batch, max_pixels: int, metrics: Metrics) -> Outcome:
    """Decode the batch, or run its stage: all that takes time. Touches nothing that other threads do."""
    try:
        metrics.waited(batch.queues.engine.manifest.name, batch.stage, _waits(batch))
        return _decode(batch, max_pixels, metrics) if batch.stage == 0 else _run_stage(batch)
    except Exception as error:
        log.exception("stage %d failed on a batch of %d", batch.stage, len(batch.samples))
        count = len(batch.samples)
        errors: dict[int, Exception] = dict.fromkeys(range(count), error.with_traceback(None))
        return Outcome(None, [False] * count, [None] * count, errors)


def _decode(batch: Batch, max_pixels: int, metrics: Metrics) -> Outcome:
    engine = batch.queues.engine
    pixels: list[Pixels] = []
    errors: dict[int, Exception] = {}
    for row, sample in enumerate(batch.samples):
        started = time.perf_counter()
        # Its request may have ended since it was taken.
        if sample.over or sample.file is None:
            continue
        try:
            image = decode(sample.file, engine.manifest.input, max_pixels)
            sample.row = len(pixels)
            pixels.append(image)
        except InvalidImageError as error:
            errors[row] = _numbered(error, sample)
        except Exception as error:
            log.exception("decoding a file of %d bytes failed", sample.size)
            errors[row] = error.with_traceback(None)
        sample.decoding = time.perf_counter() - started
    block = Block(len(pixels), np.stack(pixels), []) if pixels else None
    took = [s.decoding for row, s in enumerate(batch.samples) if row not in errors]
    metrics.decoded(engine.manifest.name, took)
    count = len(batch.samples)
    return Outcome(block, [False] * count, [None] * count, errors)


def _run_stage(batch: Batch) -> Outcome:
    engine, stage, samples = batch.queues.engine, batch.stage, batch.samples
    given = gather(engine, samples)
    output = engine.run_stage(stage, given.inputs)
    logits = [*given.logits, output.logits]
    requested_rows = [
        row
        for row, sample in enumerate(samples)
        if sample.job.report_all_exits or sample.job.deadline is not None
    ]
    policies = [sample.job.policy for sample in samples]
    leaves, predictions = engine.judge(policies, stage, logits, requested_rows)
    return Outcome(Block(len(samples), output.features, logits), leaves, predictions, {})


def _waits(batch: Batch) -> list[float]:
    waits = [batch.taken - sample.since for sample in batch.samples]
    for sample, wait in zip(batch.samples, waits, strict=True):
        sample.waited += wait
    return waits


def _numbered(error: InvalidImageError, sample: Sample) -> InvalidImageError:
    """A new error, without the traceback, which leads to the file and in a circle."""
    count = len(sample.job.samples)
    which = f"Image {sample.number + 1} of {count}: " if count > 1 else ""
    return InvalidImageError(f"{which}{error}")
