"""What the scheduler moves: samples of requests, and what they carry from stage to stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from exports.bundle.policy import Floats, Policy
from serving.inference.engine import Engine, Prediction
from serving.inference.runners import Tensor
from serving.scheduling.forecast import Forecast
from serving.scheduling.queues import ModelQueues, Queue


@dataclass(eq=False, slots=True)
class Block:
    """What the `rows` samples of one batch carry: the next stage's input, and the logits
    [rows, classes] of every exit so far."""

    rows: int
    inputs: Tensor
    logits: list[Floats]


@dataclass(eq=False, slots=True)
class Job:
    """One request's images, and how they are to be treated.

    `deadline` is a `time.perf_counter()` value; `report_all_exits` asks for an event at every
    exit, `run_all_exits` runs the exits behind the one that a sample leaves at, too. `queues` and
    `forecast` come from the scheduler.
    """

    engine: Engine
    policy: Policy
    deadline: float | None = None
    low_priority: bool = False
    report_all_exits: bool = False
    run_all_exits: bool = False
    samples: list[Sample] = field(default_factory=list)
    queues: ModelQueues = field(init=False)
    forecast: Forecast = field(init=False)


@dataclass(eq=False, slots=True)
class Sample:
    """One image on its way, number `number` of its request, from 0, of `size` bytes.

    `stage` is the next to run, 0 for decoding `file`; `queue` is where it waits, None while a worker
    has it; `since` is when it came there. `expected` is the seconds of work still before it, `held`
    the bytes it keeps while it waits for the first time, `best` its deepest prediction so far where
    someone may want it early. `left` once its answer stands, `over`
    once nothing more happens to it. `waited`, `decoding` and `computing` are seconds.
    """

    job: Job
    number: int
    size: int
    file: bytes | None = None
    block: Block | None = None
    row: int = 0
    stage: int = 0
    queue: Queue | None = None
    since: float = 0.0
    expected: float = 0.0
    held: int = 0
    best: Prediction | None = None
    left: bool = False
    over: bool = False
    waited: float = 0.0
    decoding: float = 0.0
    computing: float = 0.0


class SampleEvent(NamedTuple):
    """What became of `sample`: it reached an exit, left there, ended (`last`), or failed by `error`,
    which ends its whole request."""

    sample: Sample
    prediction: Prediction | None = None
    left: bool = False
    last: bool = False
    error: Exception | None = None


def gather(engine: Engine, samples: Sequence[Sample]) -> Block:
    """One block with the rows of `samples`, in their order; copies nothing if they are a whole one."""
    parts = [_part(engine, block, rows) for block, rows in _runs(samples)]
    if len(parts) == 1:
        return parts[0]
    logits = [np.concatenate(values) for values in zip(*(p.logits for p in parts), strict=True)]
    return Block(len(samples), engine.join([part.inputs for part in parts]), logits)


def _runs(samples: Sequence[Sample]) -> Iterator[tuple[Block, list[int]]]:
    """Neighbours of one block together."""
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


def _part(engine: Engine, block: Block, rows: list[int]) -> Block:
    if len(rows) == block.rows and rows == list(range(block.rows)):
        return block
    chosen = np.asarray(rows, dtype=np.int64)
    logits = [values[chosen] for values in block.logits]
    return Block(len(rows), engine.take(block.inputs, chosen), logits)
