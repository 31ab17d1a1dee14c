"""The queues of one engine, one per stage and class, and what it knows of its own speed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from serving.inference.engine import Engine
from serving.scheduling.costs import CostTable
from serving.scheduling.forecast import Forecasts

if TYPE_CHECKING:
    from serving.scheduling.samples import Sample

# How much of what a batch took is believed at once, and how far from the table that may lead.
LEARNING_RATE = 0.05
MAX_SLOWDOWN = 20.0
MIN_SLOWDOWN = 0.5


class Queue:
    """First in, first out; but any sample may go at any time, at no cost. `waiting` is in order, to be
    looked at only."""

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
        """Take `sample` out, wherever it stands."""
        del self.waiting[sample]
        sample.queue = None
        self.owner.waiting[self.low_priority] -= 1

    def head(self) -> Sample:
        """The one that has waited longest; there must be one."""
        return next(iter(self.waiting))


class ModelQueues:
    """One engine's state in the scheduler, under its lock. `backlog` is the seconds of work that all
    its samples still have before them, `waiting` how many of them wait, each by class: normal and low;
    `alive` is how many there are."""

    def __init__(self, engine: Engine, costs: CostTable, *, passing: bool = False) -> None:
        """`passing` is for an engine that is not open (any more): it goes with its last sample."""
        self.engine = engine
        self.costs = costs
        self.forecasts = Forecasts(engine.manifest, costs)
        self.passing = passing
        self.backlog = [0.0, 0.0]
        self.waiting = [0, 0]
        self.alive = 0
        self.when_empty: list[Callable[[], None]] = []
        self._slowdown = 1.0
        # Running means of what batches took, and of what they should have taken by the table.
        self._taken = self._due = costs.seconds(1, 1)
        # Deepest stage first, the order in which they are looked through.
        self._queues: tuple[tuple[Queue, ...], ...] = tuple(
            tuple(Queue(self, stage, low_priority) for stage in range(engine.exits, -1, -1))
            for low_priority in (False, True)
        )

    def end(self) -> None:
        """Let go of the queues, which hold on to this: an engine's memory should not have to wait for
        Python's collector of cycles."""
        self._queues = ()

    def queue(self, stage: int, low_priority: bool) -> Queue:
        """Where samples wait for `stage`, 0 for decoding."""
        return self._queues[low_priority][self.engine.exits - stage]

    def deepest(self, low_priority: bool) -> Queue | None:
        """The deepest queue of a class that is not empty."""
        if self.waiting[low_priority]:
            for queue in self._queues[low_priority]:
                if queue.waiting:
                    return queue
        return None

    def depth(self, stage: int) -> int:
        """How many samples wait for `stage`, of both classes."""
        return sum(len(self.queue(stage, low_priority).waiting) for low_priority in (False, True))

    def seconds(self, stage: int, batch: int) -> float:
        """What a batch will take: the table's figure, corrected by how the host does at present."""
        return self.costs.seconds(stage, batch) * self._slowdown

    def wait(self, low_priority: bool) -> float:
        """Seconds of work before a new sample; low ones wait for all, normal ones for their kind."""
        return (self.backlog[0] + (self.backlog[1] if low_priority else 0.0)) * self._slowdown

    def saw(self, stage: int, batch: int, seconds: float) -> None:
        """Learn that a batch took `seconds`, waiting for the interpreter and a core included."""
        # Of the means, not the mean of ratios: a batch of microseconds that waited for the interpreter
        # would count as much as all the work it waited for.
        self._taken += LEARNING_RATE * (seconds - self._taken)
        self._due += LEARNING_RATE * (self.costs.seconds(stage, batch) - self._due)
        self._slowdown = min(max(self._taken / self._due, MIN_SLOWDOWN), MAX_SLOWDOWN)
