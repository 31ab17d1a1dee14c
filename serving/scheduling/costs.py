"""Seconds of work on this host: stages by batch size, measured at load; decoding by file size, observed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Policy
from serving.inference.engine import Engine

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
MAX_BATCH = BATCH_SIZES[-1]
# Seconds of an image and stage before `measure` has run.
UNMEASURED_S = 1e-3
# More urgent work waits until a running batch has ended.
MAX_BATCH_S = 0.05
# Files are decoded together, so that they enter stage 1 as a batch. This bounds how long the first of them
# waits for the others.
MAX_DECODE_BATCH_S = MAX_BATCH_S / 2
# Overhead of a batch: queue operations and waiting for the GIL. Measured in docs/design/scheduling.md.
BATCH_OVERHEAD_S = 2e-4
# A batch size is good enough if its cost per image is within this share of the cheapest.
COST_TOLERANCE = 0.05
MEASUREMENTS = 3
# First estimate of decoding, replaced by observations: seconds per file and per byte.
DECODE_FILE_S = 5e-5
DECODE_BYTE_S = 2e-8
LEARNING_RATE = 0.1


class CostTable:
    """Seconds that stage k takes for a batch of n, and the best batch size."""

    def __init__(self, measured: Sequence[dict[int, float]]) -> None:
        """`measured[k - 1]` maps batch sizes, including 1, to the seconds stage k took.

        Sizes in between are interpolated. Larger ones cost the same per image as the largest measured
        one.
        """
        self._seconds = tuple(_interpolate(stage) for stage in measured)
        self._best = tuple(_best_batch(seconds) for seconds in self._seconds)

    @classmethod
    def unmeasured(cls, exits: int) -> Self:
        """A table for an engine that was not measured: every image costs the same."""
        return cls([{1: UNMEASURED_S}] * exits)

    def seconds(self, stage: int, batch: int) -> float:
        """Seconds of stage `stage` for `batch` images, from 1 to MAX_BATCH."""
        return self._seconds[stage - 1][batch]

    def best_batch(self, stage: int) -> int:
        """The smallest batch whose cost per image is within COST_TOLERANCE of the cheapest."""
        return self._best[stage - 1]

    def seconds_per_image(self, stage: int) -> float:
        """Seconds of stage `stage` per image in a batch of the best size."""
        best = self._best[stage - 1]
        return self._seconds[stage - 1][best] / best


def measure(engine: Engine) -> CostTable:
    """Time every stage of `engine` and the decision after it on batches of each of BATCH_SIZES, and add
    BATCH_OVERHEAD_S.

    Larger batches are skipped once one takes longer than MAX_BATCH_S, so that this ends within seconds
    for any network. The fastest of MEASUREMENTS runs counts: other work on the host only adds time.
    """
    spec = engine.manifest.input
    images = np.zeros((MAX_BATCH, spec.height, spec.width, 3), dtype=np.uint8)
    inputs: Any = images
    policy = Policy(thresholds=(2.0,) * (engine.exits - 1), max_exit=engine.exits)
    table = []
    for stage in range(1, engine.exits + 1):
        measured: dict[int, float] = {}
        for size in BATCH_SIZES:
            seconds = min(_time(engine, stage, policy, inputs, size) for _ in range(MEASUREMENTS))
            measured[size] = BATCH_OVERHEAD_S + seconds
            if seconds > MAX_BATCH_S:
                break
        table.append(measured)
        if stage < engine.exits:
            features = _features(engine, stage, inputs)
            inputs = images if features is None else features
    return CostTable(table)


class DecodeCosts:
    """Seconds that decoding a file takes, by the number of bits of its size in bytes."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def estimate(self, size: int) -> float:
        """Expected seconds of decoding a file of `size` bytes."""
        return self._seconds.get(size.bit_length(), DECODE_FILE_S + DECODE_BYTE_S * size)

    def observe(self, size: int, seconds: float) -> None:
        """Update the estimate with a file of `size` bytes that took `seconds`."""
        estimate = self.estimate(size)
        self._seconds[size.bit_length()] = estimate + LEARNING_RATE * (seconds - estimate)


def _time(engine: Engine, stage: int, policy: Policy, inputs: Any, size: int) -> float:
    batch = engine.take(inputs, np.arange(size))
    policies = [policy] * size
    started = time.perf_counter()
    output = engine.compute(stage, batch)
    engine.judge(policies, stage, [output.logits] * stage)
    return time.perf_counter() - started


def _features(engine: Engine, stage: int, inputs: Any) -> Any:
    """MAX_BATCH rows of features, copies of one: values make no difference in time. None if the stage
    has no features."""
    features = engine.compute(stage, engine.take(inputs, np.arange(1))).features
    return None if features is None else engine.take(features, np.zeros(MAX_BATCH, dtype=np.int64))


def _interpolate(measured: dict[int, float]) -> list[float]:
    """Seconds by batch size, from 0 to MAX_BATCH."""
    sizes = sorted(measured)
    # More images never take less time; if measured so, other work disturbed the measurement.
    seconds = np.maximum.accumulate([measured[size] for size in sizes])
    largest = sizes[-1]
    if largest < MAX_BATCH:
        sizes.append(MAX_BATCH)
        seconds = np.append(seconds, seconds[-1] / largest * MAX_BATCH)
    values: NDArray[np.float64] = np.interp(range(MAX_BATCH + 1), [0, *sizes], [0.0, *seconds])
    return [float(value) for value in values]


def _best_batch(seconds: list[float]) -> int:
    sizes = [size for size in BATCH_SIZES if size == 1 or seconds[size] <= MAX_BATCH_S]
    per_image = {size: seconds[size] / size for size in sizes}
    limit = min(per_image.values()) * (1 + COST_TOLERANCE)
    return next(size for size in sizes if per_image[size] <= limit)
