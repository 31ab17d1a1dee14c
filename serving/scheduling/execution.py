"""Running a batch in a worker: decoding files, or a stage and the decision which samples leave."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from exports.bundle.policy import Floats
from offramp.images import Pixels
from offramp.out_of_memory import is_out_of_memory
from serving.errors import InvalidImageError, InvalidOutputError, OutOfMemoryError
from serving.inference.engine import Engine, Prediction, decode
from serving.scheduling.queues import Block, ModelQueues, Sample
from serving.telemetry.metrics import Metrics

log = logging.getLogger("offramp.serving")


@dataclass(eq=False, slots=True)
class Batch:
    """Samples of one engine that run stage `stage` together, 0 for decoding, since `started_at`. All
    of them are shadows or none is, as `shadow` says."""

    queues: ModelQueues
    stage: int
    samples: list[Sample]
    started_at: float
    shadow: bool = False


@dataclass(eq=False, slots=True)
class Outcome:
    """The result of a batch, by row: what the samples carry on, which of them leave, the predictions
    that are needed, and errors."""

    block: Block | None
    leaves: list[bool]
    predictions: list[Prediction | None]
    errors: dict[int, Exception]


def run(batch: Batch, max_pixels: int, metrics: Metrics) -> Outcome:
    """Decode the batch or run its stage: all the slow work. Changes no state shared with other threads."""
    try:
        if not batch.shadow:
            metrics.waited(batch.queues.engine.manifest.name, batch.stage, _record_waits(batch))
        if batch.stage == 0:
            return _decode(batch, max_pixels, metrics)
        return _run_stage(batch, metrics)
    except Exception as error:
        count = len(batch.samples)
        if is_out_of_memory(error):
            log.error("stage %d has too little memory for a batch of %d", batch.stage, count)
            errors: dict[int, Exception] = {row: OutOfMemoryError() for row in range(count)}
        else:
            log.exception("stage %d failed on a batch of %d", batch.stage, count)
            errors = dict.fromkeys(range(count), error.with_traceback(None))
        return Outcome(None, [False] * count, [None] * count, errors)


def gather(engine: Engine, samples: Sequence[Sample]) -> Block:
    """One block with the rows of `samples`, in their order, and the input of their next stage. A whole
    block is returned without a copy."""
    whole = samples[0].block
    if (
        whole is not None
        and whole.inputs is not None
        and whole.rows == len(samples)
        and all(sample.block is whole and sample.row == row for row, sample in enumerate(samples))
    ):
        return whole
    parts = [_select(engine, block, rows) for block, rows in _group_by_block(samples)]
    if len(parts) == 1 and parts[0].inputs is not None:
        return parts[0]
    depth = max(len(part.logits) for part in parts)
    by_part = [_logits(engine, part, depth) for part in parts]
    logits = [np.concatenate(values) for values in zip(*by_part, strict=True)]
    inputs = [part.inputs for part in parts if part.inputs is not None]
    if len(inputs) < len(parts):
        return Block(len(samples), _stack([_image(sample) for sample in samples]), logits)
    return Block(len(samples), engine.join(inputs), logits)


def _logits(engine: Engine, block: Block, stages: int) -> list[Floats]:
    """The logits of `stages` stages, stand-ins for those of samples that begin after them."""
    return block.logits or engine.left_out(stages, block.rows)


def _decode(batch: Batch, max_pixels: int, metrics: Metrics) -> Outcome:
    engine = batch.queues.engine
    pixels: list[Pixels] = []
    errors: dict[int, Exception] = {}
    for row, sample in enumerate(batch.samples):
        started = time.perf_counter()
        # Its request may have ended since the batch was taken.
        if sample.finished or sample.file is None:
            continue
        try:
            image = decode(sample.file, engine.manifest.input, max_pixels)
            sample.row = len(pixels)
            pixels.append(image)
            if engine.last_image_stage > 1:
                sample.image = image
        except InvalidImageError as error:
            # The old error's traceback would keep the file in a reference cycle.
            errors[row] = InvalidImageError(str(error))
        except OutOfMemoryError:
            log.error("there is too little memory to decode a file of %d bytes", sample.size)
            errors[row] = OutOfMemoryError()
        except Exception as error:
            log.exception("decoding a file of %d bytes failed", sample.size)
            errors[row] = error.with_traceback(None)
        sample.decoding = time.perf_counter() - started
    block = Block(len(pixels), _stack(pixels), []) if pixels else None
    seconds = [s.decoding for row, s in enumerate(batch.samples) if row not in errors]
    metrics.decoded(engine.manifest.name, seconds)
    count = len(batch.samples)
    return Outcome(block, [False] * count, [None] * count, errors)


def _run_stage(batch: Batch, metrics: Metrics) -> Outcome:
    engine, stage, samples = batch.queues.engine, batch.stage, batch.samples
    block = gather(engine, samples)
    output = engine.run_stage(stage, block.inputs)
    logits = [*_logits(engine, block, stage - 1), output.logits]
    requested_rows = [
        row
        for row, sample in enumerate(samples)
        if sample.request.report_all_exits or sample.request.deadline is not None
    ]
    policies = [sample.request.policy for sample in samples]
    leaves, predictions = engine.judge(policies, stage, logits, requested_rows)
    if stage > 1 and engine.last_image_stage > 1:
        for sample, prediction in zip(samples, predictions, strict=True):
            if prediction is not None:
                prediction.first_stage = sample.request.first_stage
    errors = _invalid(batch, output.logits)
    if errors:
        metrics.invalid_output(engine.manifest.name, stage, len(errors))
    return Outcome(Block(len(samples), output.features, logits), leaves, predictions, errors)


def _invalid(batch: Batch, logits: Floats) -> dict[int, Exception]:
    """An error for every row of `logits` with a NaN or an infinite maximum, which has no probabilities."""
    highest = np.maximum.reduce(logits, axis=1)
    # A sum is finite only if all its terms are.
    if math.isfinite(np.add.reduce(highest)):
        return {}
    rows = np.flatnonzero(~np.isfinite(highest)).tolist()
    name = batch.queues.engine.manifest.name
    log.error("stage %d of %s gave no logits for %d images", batch.stage, name, len(rows))
    sentence = f"Stage {batch.stage} of {name} gave values for this image that are no logits."
    return {row: InvalidOutputError(sentence) for row in rows}


def _record_waits(batch: Batch) -> list[float]:
    waits = []
    for sample in batch.samples:
        wait = batch.started_at - sample.enqueued_at
        sample.waited += wait
        waits.append(wait)
    return waits


def _group_by_block(samples: Sequence[Sample]) -> Iterator[tuple[Block, list[int]]]:
    """Runs of neighbouring samples with the same block, as the block and its rows."""
    block, rows = samples[0].block, [samples[0].row]
    assert block is not None
    for sample in samples[1:]:
        if sample.block is block:
            rows.append(sample.row)
            continue
        yield block, rows
        assert sample.block is not None
        block, rows = sample.block, [sample.row]
    yield block, rows


def _stack(images: Sequence[Pixels]) -> Pixels:
    """`np.stack`, for images of one shape."""
    found = np.empty((len(images), *images[0].shape), dtype=np.uint8)
    for row, image in enumerate(images):
        found[row] = image
    return found


def _image(sample: Sample) -> Pixels:
    assert sample.image is not None
    return sample.image


def _select(engine: Engine, block: Block, rows: list[int]) -> Block:
    if len(rows) == block.rows and rows == list(range(block.rows)):
        return block
    indices = np.asarray(rows, dtype=np.int64)
    logits = [values[indices] for values in block.logits]
    inputs = None if block.inputs is None else engine.take(block.inputs, indices)
    return Block(len(rows), inputs, logits)
