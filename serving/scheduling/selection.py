"""The rules of the scheduler: which queue is next, and how many of its samples one worker takes."""

from __future__ import annotations

import heapq
import itertools

from serving.inference.engine import Engine
from serving.scheduling.costs import MAX_BATCH, MAX_DECODE_BATCH_S, DecodeCosts
from serving.scheduling.queues import ModelQueues, Queue, Sample

# Waking another worker takes about this long; less work than that is not worth sharing.
WAKE_S = 1e-4
# While samples of both priorities wait, one batch in this many has low priority.
LOW_PRIORITY_TURN = 16


class BatchSelector:
    """The queues of all models, and the order in which their samples run. Guarded by the scheduler's
    lock.

    `free_workers` is the number of workers without a batch, including the one that asks for one.
    """

    def __init__(self, workers: int) -> None:
        self.model_queues: dict[Engine, ModelQueues] = {}
        self.decode_costs = DecodeCosts()
        self.free_workers = workers
        # Waiting samples with a deadline, the most urgent first. An entry whose sample has moved to
        # another stage or finished is stale.
        self._deadlines: list[tuple[float, int, Sample, int]] = []
        self._entry = itertools.count()
        self._batches_since_low = 0

    def remove(self, queues: ModelQueues) -> None:
        """Remove `queues`, which are empty for good."""
        self.model_queues.pop(queues.engine, None)
        queues.release()
        # Stale entries would keep the engine in memory.
        self._prune_deadlines()

    def add_deadline(self, sample: Sample, deadline: float, in_flight: int) -> None:
        """Note the deadline of a waiting sample; `in_flight` is the number of unfinished samples."""
        if len(self._deadlines) > 2 * in_flight + MAX_BATCH:
            self._prune_deadlines()
        heapq.heappush(self._deadlines, (deadline, next(self._entry), sample, sample.stage))

    def choose(self, now: float) -> tuple[Queue, Sample | None] | None:
        """The queue to take from, and the sample of it that must come first, if any."""
        usual = self._deepest_queue()
        if usual is None:
            return None
        urgent = self._most_urgent()
        if urgent is not None and urgent.queue is not None:
            deadline = urgent.request.deadline
            required = self.seconds(urgent.queue, 1)
            blocked = self.seconds(usual, self.batch_size(usual))
            if deadline is not None and deadline - now < required + blocked:
                return urgent.queue, urgent
        return usual, None

    def batch_size(self, queue: Queue) -> int:
        """How many samples of `queue` one worker should take: the best batch, less what is worth leaving
        to other free workers."""
        queues, waiting = queue.owner, len(queue.waiting)
        share = -(-waiting // max(1, self.free_workers))
        if queue.stage == 0:
            return min(queues.costs.best_batch(1), share)
        best = min(queues.costs.best_batch(queue.stage), waiting)
        if (
            share < best
            and queues.seconds(queue.stage, best) - queues.seconds(queue.stage, share) > WAKE_S
        ):
            return share
        return best

    def seconds(self, queue: Queue, batch: int) -> float:
        """Expected seconds of the next stage for `batch` samples of `queue`; for files, decoding as many
        as are decoded together, and stage 1."""
        if queue.stage == 0:
            each = self.decode_costs.estimate(queue.head().size)
            decoding = max(each, min(batch * each, MAX_DECODE_BATCH_S))
            return decoding + queue.owner.seconds(1, batch)
        return queue.owner.seconds(queue.stage, batch)

    def _deepest_queue(self) -> Queue | None:
        """The deepest queue of the priority whose turn it is; among equals, the one whose head has waited
        longest."""
        model_queues = self.model_queues.values()
        if len(model_queues) == 1:
            (only,) = model_queues
            # By far the most frequent case.
            if not only.waiting[True]:
                return only.deepest(False)
        normals = [queue for queues in model_queues if (queue := queues.deepest(False)) is not None]
        lows = [queue for queues in model_queues if (queue := queues.deepest(True)) is not None]
        if lows and normals:
            self._batches_since_low += 1
        if lows and (not normals or self._batches_since_low >= LOW_PRIORITY_TURN):
            self._batches_since_low = 0
            candidates = lows
        else:
            candidates = normals
        if len(candidates) <= 1:
            return candidates[0] if candidates else None
        return max(candidates, key=lambda queue: (queue.stage, -queue.head().enqueued_at))

    def _prune_deadlines(self) -> None:
        self._deadlines = [entry for entry in self._deadlines if entry[2].queue is not None]
        heapq.heapify(self._deadlines)

    def _most_urgent(self) -> Sample | None:
        while self._deadlines:
            _, _, sample, stage = self._deadlines[0]
            if sample.queue is not None and sample.stage == stage:
                return sample
            heapq.heappop(self._deadlines)
        return None
