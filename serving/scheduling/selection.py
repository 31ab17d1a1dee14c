"""The rules of the scheduler: which queue is next, and how much of it one worker takes."""

from __future__ import annotations

import heapq
import itertools

from serving.inference.engine import Engine
from serving.scheduling.costs import MAX_BATCH, DecodeCosts
from serving.scheduling.queues import ModelQueues, Queue
from serving.scheduling.samples import Sample

# Waking another worker takes about this long; less work than that is not worth sharing.
WAKE_S = 1e-4
# While both wait, one batch in this many is of low samples.
LOW_PRIORITY_TURN = 16


class BatchSelector:
    """Every line, in the order in which its samples should run. Belongs to the scheduler's lock.

    `free` is how many workers have no batch, the one that asks included; `decoding` is what files cost.
    """

    def __init__(self, workers: int) -> None:
        self.model_queues: dict[Engine, ModelQueues] = {}
        self.decoding = DecodeCosts()
        self.free = workers
        # Waiting samples with a deadline, the most urgent first; entries may be out of date.
        self._dated: list[tuple[float, int, Sample, int]] = []
        self._entry = itertools.count()
        self._turn = 0

    def forget(self, queues: ModelQueues) -> None:
        """`queues` is done with."""
        self.model_queues.pop(queues.engine, None)
        queues.end()
        # They would keep the engine.
        self._keep_waiting()

    def watch(self, sample: Sample, deadline: float, alive: int) -> None:
        """`sample` waits and has a deadline; `alive` is how many samples there are at all."""
        if len(self._dated) > 2 * alive + MAX_BATCH:
            self._keep_waiting()
        heapq.heappush(self._dated, (deadline, next(self._entry), sample, sample.stage))

    def choose(self, now: float) -> tuple[Queue, Sample | None] | None:
        """The queue to take from, and the sample in it that must come first, if one must."""
        usual = self._usual()
        if usual is None:
            return None
        urgent = self._most_urgent()
        if urgent is not None and urgent.queue is not None:
            deadline = urgent.job.deadline
            needs = self.seconds(urgent.queue, 1)
            blocked = self.seconds(usual, self.share(usual))
            if deadline is not None and deadline - now < needs + blocked:
                return urgent.queue, urgent
        return usual, None

    def _usual(self) -> Queue | None:
        """The deepest queue, of the class whose turn it is; the one waiting longest among equals."""
        model_queues = self.model_queues.values()
        normals = [queue for queues in model_queues if (queue := queues.deepest(False)) is not None]
        lows = [queue for queues in model_queues if (queue := queues.deepest(True)) is not None]
        if lows and normals:
            self._turn += 1
        if lows and (not normals or self._turn >= LOW_PRIORITY_TURN):
            self._turn = 0
            candidates = lows
        else:
            candidates = normals
        if len(candidates) <= 1:
            return candidates[0] if candidates else None
        return max(candidates, key=lambda queue: (queue.stage, -queue.head().since))

    def _keep_waiting(self) -> None:
        """Forget the entries of samples that no longer wait."""
        self._dated = [entry for entry in self._dated if entry[2].queue is not None]
        heapq.heapify(self._dated)

    def _most_urgent(self) -> Sample | None:
        while self._dated:
            _, _, sample, stage = self._dated[0]
            if sample.queue is not None and sample.stage == stage:
                return sample
            heapq.heappop(self._dated)
        return None

    def share(self, queue: Queue) -> int:
        """How many samples of `queue` one worker should take: what pays, less what others could do."""
        queues, waiting = queue.owner, len(queue.waiting)
        if queue.stage == 0:
            best = min(queues.costs.best(1), waiting)
            return min(best, -(-waiting // max(1, self.free)))
        best = min(queues.costs.best(queue.stage), waiting)
        part = -(-waiting // max(1, self.free))
        if (
            part < best
            and queues.seconds(queue.stage, best) - queues.seconds(queue.stage, part) > WAKE_S
        ):
            return part
        return best

    def seconds(self, queue: Queue, batch: int) -> float:
        """What the next stage takes for `batch` samples of `queue`; of files, until stage 1 is done."""
        if queue.stage == 0:
            return self.decoding.guess(queue.head().size) + queue.owner.seconds(1, batch)
        return queue.owner.seconds(queue.stage, batch)
