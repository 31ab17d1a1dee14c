"""The scheduler: all queues under one lock, and the worker threads that take batches from them.

A worker takes a batch and runs it without the lock. Then, in one step, it puts the samples that continue
into the next stage's queue and takes its next batch, so that a sample needs no hand-over to go deeper.
docs/design/scheduling.md has the rules.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from weakref import WeakKeyDictionary

from serving.errors import DrainingError, OverCapacityError
from serving.inference.engine import Engine
from serving.scheduling.costs import MAX_DECODE_BATCH_S, CostTable
from serving.scheduling.execution import Batch, Outcome, run
from serving.scheduling.idle_workers import IdleWorkers
from serving.scheduling.lifecycle import SampleTracker
from serving.scheduling.options import Load
from serving.scheduling.queues import ModelQueues, Queue, Sample, SampleEvent, ScheduledRequest
from serving.scheduling.selection import BatchSelector
from serving.scheduling.shadows import ShadowQueue, separate
from serving.telemetry.metrics import Metrics


class Scheduler:
    """Queues and workers. Any thread may call any method."""

    def __init__(
        self,
        *,
        workers: int,
        max_wait: float,
        max_bytes: int,
        max_pixels: int,
        metrics: Metrics,
        report: Callable[[list[SampleEvent]], None],
        max_shadow_work: float = 0.0,
    ) -> None:
        """`max_wait` is the longest predicted wait in seconds, `max_bytes` the limit of the waiting images,
        `max_shadow_work` the most work of shadows as a share of that of requests.

        `report` receives the events of samples in order. It is called under the lock, which keeps the
        order between workers, so it must neither block nor call back.
        """
        self._workers = workers
        self._max_wait = max_wait
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._metrics = metrics
        self._report = report
        self._lock = threading.Lock()
        self._selector = BatchSelector(workers)
        self._costs: WeakKeyDictionary[Engine, CostTable] = WeakKeyDictionary()
        self._tracker = SampleTracker(self._selector, metrics)
        self._shadows = ShadowQueue(max_shadow_work, self._selector)
        self._idle = IdleWorkers(self._lock)
        self._closing = False
        # Predicted waits in seconds of a new sample, as (normal, low): see `_publish`.
        self._waits = (0.0, 0.0)
        self._threads = [
            threading.Thread(target=self._run_worker, name=f"offramp-work-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def in_flight(self) -> int:
        """Accepted samples that are not finished."""
        return self._tracker.in_flight

    def open(self, engine: Engine, costs: CostTable) -> None:
        """Accept samples for `engine`."""
        with self._lock:
            self._costs[engine] = costs
            self._selector.model_queues[engine] = ModelQueues(engine, costs)
            self._publish()
        name = engine.manifest.name
        for stage in range(engine.exits + 1):
            self._metrics.watch_queue(name, stage, partial(self._depth, name, stage))

    def retire(self, engine: Engine, on_empty: Callable[[], None]) -> None:
        """Remove `engine` once none of its samples is left, then call `on_empty`."""
        with self._lock:
            self._shadows.drop("ended", engine)
            queues = self._selector.model_queues.get(engine)
            if queues is not None and queues.in_flight:
                queues.retiring = True
                queues.on_empty.append(on_empty)
                return
            if queues is not None:
                self._selector.remove(queues)
        on_empty()

    def load(self, engine: Engine) -> Load | None:
        """The load of `engine`; None if it is not open."""
        with self._lock:
            queues = self._selector.model_queues.get(engine)
            if queues is None:
                return None
            normal, low = queues.busy_s
            wait, slowdown = self._waits[False], queues.slowdown
            return Load(queues.admitted, queues.finished, normal, low, wait, slowdown)

    def check(self, low_priority: bool, size: int = 0) -> None:
        """Raise OverCapacityError if a request of `size` bytes would have to wait for too long.

        Without the lock this is a hint from the last published state; `submit` decides with the lock.
        """
        wait = self._waits[low_priority]
        if wait > self._max_wait:
            raise OverCapacityError(
                f"The server is busy: a new image would wait for {1000 * wait:.0f} ms.",
                wait - self._max_wait,
            )
        waiting = self._tracker.bytes
        if waiting and waiting + size > self._max_bytes:
            raise OverCapacityError("The server has as many bytes waiting as it allows.", wait)

    def submit(self, request: ScheduledRequest) -> None:
        """Queue a request's samples. Raises OverCapacityError if the wait or the bytes would be too many,
        DrainingError after `close`."""
        size = sum(sample.size for sample in request.samples)
        now = time.perf_counter()
        with self._lock:
            if self._closing:
                raise DrainingError("The server is shutting down.")
            self.check(request.low_priority, size)
            request.queues = queues = self._queues_of(request.engine)
            request.forecast = queues.forecasts.of(request.policy, request.run_all_exits)
            self._tracker.admit(request, size, now)
            self._publish()
            self._idle.wake(1)

    def add_shadows(self, shadows: Sequence[Sample]) -> None:
        """Let `shadows` go on to full depth while nothing else waits."""
        for shadow in shadows:
            separate(shadow)
        with self._lock:
            self._shadows.add(shadows, time.perf_counter())
            self._idle.wake(1)

    def drop(self, request: ScheduledRequest) -> None:
        """End what is left of a request whose client has gone."""
        with self._lock:
            self._tracker.drop(request.samples)
            self._publish()

    def expire(self, request: ScheduledRequest) -> None:
        """End the samples of a request whose deadline has come, with what they have."""
        with self._lock:
            for sample in request.samples:
                if not sample.finished:
                    self._tracker.expire(sample)
            self._publish()

    def close(self) -> None:
        """Finish the accepted samples and end the workers."""
        with self._lock:
            self._closing = True
            self._shadows.close()
            self._idle.wake(self._workers)
        for thread in self._threads:
            thread.join()

    def _run_worker(self) -> None:
        batch: Batch | None = None
        outcome: Outcome | None = None
        parked = threading.Lock()
        parked.acquire()
        while True:
            with self._lock:
                now = time.perf_counter()
                if batch is not None and outcome is not None:
                    self._complete(batch, outcome, now)
                batch, outcome = self._take(now) or self._shadows.take(now), None
                self._publish()
                if batch is None:
                    if self._closing and self._tracker.in_flight == 0:
                        # While samples are in flight some worker is awake, and it ends up here.
                        self._idle.wake(self._workers)
                        return
                    self._idle.sleep(parked)
                    continue
            outcome = run(batch, self._max_pixels, self._metrics)

    # All methods below are called with the lock held, except `_depth`.

    def _publish(self) -> None:
        """Publish the predicted waits, then report events. Called after each change, before the lock is
        released, so that the waits are exact under the lock, and a client that was answered is not refused
        because of its own work."""
        normal = low = 0.0
        for queues in self._selector.model_queues.values():
            waits = queues.waits()
            normal += waits[0]
            low += waits[1]
        self._waits = (normal / self._workers, low / self._workers)
        events = self._tracker.collect()
        if events:
            self._report(events)

    def _queues_of(self, engine: Engine) -> ModelQueues:
        """The queues of `engine`. A request may hold an engine that was retired meanwhile, or never
        opened; its queues are removed with its last sample."""
        queues = self._selector.model_queues.get(engine)
        if queues is None:
            costs = self._costs.get(engine) or CostTable.unmeasured(engine.exits)
            queues = ModelQueues(engine, costs, retiring=True)
            self._selector.model_queues[engine] = queues
        return queues

    def _complete(self, batch: Batch, outcome: Outcome, now: float) -> None:
        self._selector.free_workers += 1
        if batch.shadow:
            self._shadows.complete(batch, outcome, now)
        else:
            self._tracker.complete_batch(batch, outcome, now)
            self._shadows.earn(now - batch.started_at, now)

    def _take(self, now: float) -> Batch | None:
        """The next batch, None if nothing waits."""
        if not self._tracker.in_flight:
            return None
        while (chosen := self._selector.choose(now)) is not None:
            queue, urgent = chosen
            samples = (
                self._take_files(queue)
                if queue.stage == 0 and urgent is None
                else self._take_rows(queue, urgent, now)
            )
            if samples:
                self._selector.free_workers -= 1
                if self._idle and any(
                    any(queues.waiting) for queues in self._selector.model_queues.values()
                ):
                    self._idle.wake(1)
                return Batch(queue.owner, queue.stage, samples, now)
        return None

    def _take_files(self, queue: Queue) -> list[Sample]:
        """Files until they make a batch for stage 1, as long as decoding them is short enough."""
        limit = self._selector.batch_size(queue)
        samples: list[Sample] = []
        seconds = 0.0
        while queue.waiting and len(samples) < limit:
            sample = queue.head()
            seconds += self._selector.decode_costs.estimate(sample.size)
            if samples and seconds > MAX_DECODE_BATCH_S:
                break
            self._tracker.dequeue(sample)
            samples.append(sample)
        return samples

    def _take_rows(self, queue: Queue, urgent: Sample | None, now: float) -> list[Sample]:
        """A batch in the queue's order, the urgent sample first; no larger than its deadlines allow."""
        limit = self._selector.batch_size(queue)
        samples: list[Sample] = []
        earliest = float("inf")
        while queue.waiting and len(samples) < limit:
            sample = urgent if urgent is not None and urgent.queue is queue else queue.head()
            deadline = sample.request.deadline
            if deadline is not None and self._is_late(sample, deadline, now):
                self._tracker.expire(sample)
                continue
            if deadline is not None:
                earliest = min(earliest, deadline)
            if samples and now + self._selector.seconds(queue, len(samples) + 1) > earliest:
                break
            self._tracker.dequeue(sample)
            samples.append(sample)
        return samples

    def _is_late(self, sample: Sample, deadline: float, now: float) -> bool:
        if sample.best is None:
            # Without any prediction yet, the stage is worth trying until the deadline.
            return now >= deadline
        return now + sample.request.queues.seconds(sample.stage, 1) > deadline

    def _depth(self, name: str, stage: int) -> int:
        with self._lock:
            return sum(
                queues.depth(stage)
                for queues in self._selector.model_queues.values()
                if queues.engine.manifest.name == name and queues.engine.exits >= stage
            )
