"""Requests, their samples, and the queues that the samples of one engine wait in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from exports.bundle.policy import Floats, Policy
from offramp.images import Pixels
from serving.inference.engine import Engine, Prediction
from serving.inference.runners import Tensor
from serving.scheduling.costs import CostTable
from serving.scheduling.forecast import Forecast, Forecasts
from serving.scheduling.options import ShadowOptions

# How much of a batch's measured time is believed at once, and the limits of the correction.
LEARNING_RATE = 0.05
MAX_SLOWDOWN = 20.0
MIN_SLOWDOWN = 0.5


@dataclass(eq=False, slots=True)
class Block:
    """What the `rows` samples of one batch carry: the input of the next stage, and the logits
    [rows, classes] of every exit so far, or none if no stage has run. `inputs` is None after a stage without
    features: the samples' images are the next stage's input."""

    rows: int
    inputs: Tensor | None
    logits: list[Floats]


@dataclass(eq=False, slots=True)
class ScheduledRequest:
    """One request's images, and how to treat them.

    `deadline` is a `time.perf_counter()` value. With `report_all_exits` there is an event at every
    exit; with `run_all_exits` a sample runs the exits after its answer as well; `shadow` says which samples
    become shadows. `first_stage` is the stage at which its samples begin once they are decoded. The scheduler
    sets `queues` and `forecast`.
    """

    engine: Engine
    policy: Policy
    deadline: float | None = None
    low_priority: bool = False
    report_all_exits: bool = False
    run_all_exits: bool = False
    shadow: ShadowOptions | None = None
    first_stage: int = 1
    samples: list[Sample] = field(default_factory=list)
    queues: ModelQueues = field(init=False)
    forecast: Forecast = field(init=False)


@dataclass(eq=False, slots=True)
class Sample:
    """One image of a request: number `number`, from 0, of `size` bytes.

    - `stage` is the next stage to run, 0 for decoding `file`.
    - `image` is its pixels uint8 [H, W, 3], kept while a stage after the next may take them.
    - `queue` is where it waits since `enqueued_at`; None while a worker runs it.
    - `expected` is the seconds of work still ahead.
    - `held` is its size in bytes until it is taken out of its first queue, then 0.
    - `best` is its deepest prediction so far, kept only if a deadline may need it.
    - `answered` is set with its answer, `finished` once nothing more happens to it.
    - `waited`, `decoding` and `computing` are seconds.
    - `shadow` is its shadow, once it was answered, if it has one.
    """

    request: ScheduledRequest
    number: int
    size: int
    file: bytes | None = None
    image: Pixels | None = None
    block: Block | None = None
    row: int = 0
    stage: int = 0
    queue: Queue | None = None
    enqueued_at: float = 0.0
    expected: float = 0.0
    held: int = 0
    best: Prediction | None = None
    answered: bool = False
    finished: bool = False
    waited: float = 0.0
    decoding: float = 0.0
    computing: float = 0.0
    shadow: Sample | None = None


class SampleEvent(NamedTuple):
    """What happened to `sample`: it reached an exit, was answered there, finished (`last`), or failed
    with `error`, which ends its whole request unless it is one of IMAGE_ERRORS. `waited` and `computing`
    are the sample's at that moment: it may run on before the event is read."""

    sample: Sample
    waited: float
    computing: float
    prediction: Prediction | None = None
    answered: bool = False
    last: bool = False
    error: Exception | None = None


class Queue:
    """Samples in order of arrival, any of which can be removed in constant time.

    `waiting` is in order; change it through the methods only.
    """

    def __init__(self, owner: ModelQueues, stage: int, low_priority: bool) -> None:
        self.owner = owner
        self.stage = stage
        self.low_priority = low_priority
        self.waiting: OrderedDict[Sample, None] = OrderedDict()

    def add(self, sample: Sample) -> None:
        """Put `sample` at the end."""
        self.waiting[sample] = None
        sample.queue = self
        self.owner.waiting[self.low_priority] += 1

    def remove(self, sample: Sample) -> None:
        """Remove `sample`, wherever it is in the queue."""
        del self.waiting[sample]
        sample.queue = None
        self.owner.waiting[self.low_priority] -= 1

    def head(self) -> Sample:
        """The sample that has waited longest; the queue must not be empty."""
        return next(iter(self.waiting))


class ModelQueues:
    """The scheduler's state for one engine: a queue per stage and priority. Guarded by the
    scheduler's lock.

    `backlog` is the seconds of work ahead of all its samples, `waiting` the number of waiting ones,
    each as [normal, low]; `in_flight` is the number of unfinished samples. `admitted` and `finished` count
    samples of normal priority since the start, `busy_s` the seconds of workers spent, as [normal, low].
    """

    def __init__(self, engine: Engine, costs: CostTable, *, retiring: bool = False) -> None:
        """`retiring` is for an engine that is not open: its queues go with its last sample."""
        self.engine = engine
        self.costs = costs
        self.forecasts = Forecasts(engine.manifest, costs)
        self.retiring = retiring
        self.backlog = [0.0, 0.0]
        self.waiting = [0, 0]
        self.in_flight = 0
        self.admitted = 0
        self.finished = 0
        self.busy_s = [0.0, 0.0]
        self.on_empty: list[Callable[[], None]] = []
        self._slowdown = 1.0
        # Running means of what batches took, and of what the table predicted for them.
        self._measured = self._predicted = costs.seconds(1, 1)
        # Deepest stage first, the order in which they are searched.
        self._queues: tuple[tuple[Queue, ...], ...] = tuple(
            tuple(Queue(self, stage, low_priority) for stage in range(engine.exits, -1, -1))
            for low_priority in (False, True)
        )

    def release(self) -> None:
        """Break the reference cycle with the queues, so that the engine is freed without the garbage
        collector."""
        self._queues = ()

    def queue(self, stage: int, low_priority: bool) -> Queue:
        """Where samples wait for `stage`, 0 for decoding."""
        return self._queues[low_priority][self.engine.exits - stage]

    def deepest(self, low_priority: bool) -> Queue | None:
        """The deepest queue of a priority that is not empty."""
        if self.waiting[low_priority]:
            for queue in self._queues[low_priority]:
                if queue.waiting:
                    return queue
        return None

    def depth(self, stage: int) -> int:
        """How many samples wait for `stage`, of both priorities."""
        return sum(len(self.queue(stage, low_priority).waiting) for low_priority in (False, True))

    def seconds(self, stage: int, batch: int) -> float:
        """Expected seconds of a batch: the table's figure, corrected by recent measurements."""
        return self.costs.seconds(stage, batch) * self._slowdown

    @property
    def slowdown(self) -> float:
        """How much longer batches take than the table says, by recent measurements."""
        return self._slowdown

    def waits(self) -> tuple[float, float]:
        """Seconds of work ahead of a new sample of normal and of low priority: normal waits for its own
        work, low for all."""
        normal, low = self.backlog
        return normal * self._slowdown, (normal + low) * self._slowdown

    def observe(self, stage: int, batch: int, seconds: float) -> None:
        """Update the correction with a batch that took `seconds`, including waits for the GIL and a
        core."""
        # The ratio of the means, not the mean of the ratios: otherwise a batch of microseconds that
        # waited for the GIL would count as much as the work it waited for.
        self._measured += LEARNING_RATE * (seconds - self._measured)
        self._predicted += LEARNING_RATE * (self.costs.seconds(stage, batch) - self._predicted)
        self._slowdown = min(max(self._measured / self._predicted, MIN_SLOWDOWN), MAX_SLOWDOWN)
