"""What work costs on this host: stages by batch size, measured; decoding by file size, learned."""

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
# Until `measure` has run, and for sizes that nothing was measured for: no better guess is needed.
UNMEASURED_S = 1e-3
# A batch in work keeps a core from everything more urgent for as long as it takes.
MAX_BATCH_S = 0.05
# What a batch costs besides its stage: being taken and settled, and waiting for the interpreter, which
# other threads want too. docs/design/scheduling.md tells what it was measured with.
HANDOVER_S = 2e-4
# What a larger batch must save an image, against the cheapest size, before its images wait for it.
MIN_SAVING = 0.05
REPEATS = 3
# A first guess of decoding, replaced by what is seen: seconds a file and seconds a byte.
DECODE_FILE_S = 5e-5
DECODE_BYTE_S = 2e-8
LEARNING_RATE = 0.1


class CostTable:
    """Seconds that stage k takes for a batch of n, and the batch size worth waiting for."""

    def __init__(self, measured: Sequence[dict[int, float]]) -> None:
        """`measured[k - 1]` maps batch sizes, 1 among them, to the seconds stage k took.

        Sizes between are interpolated; larger ones are taken to cost what the largest measured one
        costs an image.
        """
        self._seconds = tuple(_filled(stage) for stage in measured)
        self._best = tuple(_worth_it(seconds) for seconds in self._seconds)

    @classmethod
    def unmeasured(cls, exits: int) -> Self:
        """A table for an engine that was never measured: every image costs the same."""
        return cls([{1: UNMEASURED_S}] * exits)

    def seconds(self, stage: int, batch: int) -> float:
        """What stage `stage` takes for `batch` images, from 1 to MAX_BATCH."""
        return self._seconds[stage - 1][batch]

    def best(self, stage: int) -> int:
        """The smallest batch whose cost an image is within MIN_SAVING of the cheapest's."""
        return self._best[stage - 1]

    def each(self, stage: int) -> float:
        """What an image costs in a batch of the best size."""
        best = self._best[stage - 1]
        return self._seconds[stage - 1][best] / best


def measure(engine: Engine) -> CostTable:
    """Time every stage of `engine`, the decision after it included, on batches of each of BATCH_SIZES, and
    add HANDOVER_S.

    Stops growing where a batch takes longer than MAX_BATCH_S, so that it ends within seconds for
    any network. The best of a few runs counts: other work on the host only ever adds time.
    """
    spec = engine.manifest.input
    inputs: Any = np.zeros((MAX_BATCH, spec.height, spec.width, 3), dtype=np.uint8)
    policy = Policy(thresholds=(2.0,) * (engine.exits - 1), max_exit=engine.exits)
    table = []
    for stage in range(1, engine.exits + 1):
        found: dict[int, float] = {}
        for size in BATCH_SIZES:
            took = min(_time(engine, stage, policy, inputs, size) for _ in range(REPEATS))
            found[size] = HANDOVER_S + took
            if took > MAX_BATCH_S:
                break
        table.append(found)
        if stage < engine.exits:
            inputs = _inputs_of_next(engine, stage, inputs)
    return CostTable(table)


class DecodeCosts:
    """Seconds that decoding a file takes, by the order of magnitude of its bytes."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def guess(self, size: int) -> float:
        """What decoding a file of `size` bytes will take."""
        return self._seconds.get(size.bit_length(), DECODE_FILE_S + DECODE_BYTE_S * size)

    def saw(self, size: int, seconds: float) -> None:
        """Learn that decoding a file of `size` bytes took `seconds`."""
        guess = self.guess(size)
        self._seconds[size.bit_length()] = guess + LEARNING_RATE * (seconds - guess)


def _time(engine: Engine, stage: int, policy: Policy, inputs: Any, size: int) -> float:
    batch = engine.take(inputs, np.arange(size))
    policies = [policy] * size
    started = time.perf_counter()
    output = engine.compute(stage, batch)
    engine.judge(policies, stage, [output.logits] * stage)
    return time.perf_counter() - started


def _inputs_of_next(engine: Engine, stage: int, inputs: Any) -> Any:
    """MAX_BATCH rows for the stage after, from one: what they hold makes no difference in time."""
    one = engine.compute(stage, engine.take(inputs, np.arange(1)))
    return engine.take(one.features, np.zeros(MAX_BATCH, dtype=np.int64))


def _filled(measured: dict[int, float]) -> list[float]:
    """Seconds by batch size, from 0 (which costs nothing) to MAX_BATCH."""
    sizes = sorted(measured)
    # More images never take less time; where it seems so, the machine was busy with something else.
    seconds = np.maximum.accumulate([measured[size] for size in sizes])
    largest = sizes[-1]
    if largest < MAX_BATCH:
        sizes.append(MAX_BATCH)
        seconds = np.append(seconds, seconds[-1] / largest * MAX_BATCH)
    filled: NDArray[np.float64] = np.interp(range(MAX_BATCH + 1), [0, *sizes], [0.0, *seconds])
    return [float(value) for value in filled]


def _worth_it(seconds: list[float]) -> int:
    sizes = [size for size in BATCH_SIZES if size == 1 or seconds[size] <= MAX_BATCH_S]
    each = {size: seconds[size] / size for size in sizes}
    limit = min(each.values()) * (1 + MIN_SAVING)
    return next(size for size in sizes if each[size] <= limit)
