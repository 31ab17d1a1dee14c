"""Which samples run next. One object owns all queues under one lock; workers come and take.

A worker takes a batch, runs it without the lock, then puts those who stay into the next stage's queue
and takes its next batch in one step, so a sample needs no hand-over to go deeper. docs/scheduling.md
tells the rules.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

from serving.errors import DrainingError, OverCapacityError
from serving.inference.engine import Engine
from serving.scheduling.costs import CostTable
from serving.scheduling.execution import Batch, Outcome, run
from serving.scheduling.lifecycle import Progress
from serving.scheduling.queues import Line, Queue
from serving.scheduling.samples import Job, Sample, Seen
from serving.scheduling.selection import Order
from serving.telemetry.metrics import Metrics

# Small files are decoded together, so that they enter stage 1 as a batch; this is how long the first
# of them may wait for the others.
DECODE_TOGETHER = 5e-3


class Scheduler:
    """Queues, workers and the rules between them. Any thread may call any method."""

    def __init__(
        self,
        *,
        workers: int,
        max_wait: float,
        max_bytes: int,
        max_pixels: int,
        metrics: Metrics,
        report: Callable[[list[Seen]], None],
    ) -> None:
        """`max_wait` is the longest predicted wait in seconds, `max_bytes` bounds the waiting images.

        `report` gets what became of samples, in the order in which it became of them: under the lock, or
        one worker would overtake another. It must not block, nor call back.
        """
        self._workers = workers
        self._max_wait = max_wait
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._metrics = metrics
        self._report = report
        self._lock = threading.Lock()
        self._order = Order(workers)
        self._costs: WeakKeyDictionary[Engine, CostTable] = WeakKeyDictionary()
        self._progress = Progress(self._order, metrics)
        self._sleepers: list[threading.Lock] = []
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"offramp-work-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    # For the door

    @property
    def alive(self) -> int:
        """Accepted samples that are not over."""
        return self._progress.alive

    def open(self, engine: Engine, costs: CostTable) -> None:
        """Expect samples for `engine`."""
        with self._lock:
            self._costs[engine] = costs
            self._order.lines[engine] = Line(engine, costs)
        name = engine.manifest.name
        for stage in range(engine.exits + 1):
            self._metrics.watch_queue(name, stage, partial(self._depth, name, stage))

    def retire(self, engine: Engine, when_empty: Callable[[], None]) -> None:
        """Forget `engine` once none of its samples is left, and say so."""
        with self._lock:
            line = self._order.lines.get(engine)
            if line is not None and line.alive:
                line.passing = True
                line.when_empty.append(when_empty)
                return
            if line is not None:
                self._order.forget(line)
        when_empty()

    def check(self, low: bool) -> None:
        """Raise OverCapacityError if a request would have to wait for too long."""
        with self._lock:
            self._check(low, 0)

    def submit(self, job: Job) -> None:
        """Queue a job's samples; raises OverCapacityError if there is no room for them, DrainingError
        after `close`."""
        size = sum(sample.size for sample in job.samples)
        now = time.perf_counter()
        with self._lock:
            if self._closing:
                raise DrainingError("The server is shutting down.")
            self._check(job.low, size)
            job.line = line = self._line(job.engine)
            job.forecast = line.forecasts.of(job.policy, job.beyond)
            self._progress.admit(job, size, now)
            self._wake(1)

    def drop(self, job: Job) -> None:
        """Forget what is left of a job that nobody waits for."""
        with self._lock:
            self._progress.end(job.samples)

    def expire(self, job: Job) -> None:
        """The job's deadline has come: end its samples with what they have."""
        with self._lock:
            for sample in job.samples:
                if not sample.over:
                    self._progress.run_out(sample)
            self._tell()

    def close(self) -> None:
        """Finish what is accepted and end the workers."""
        with self._lock:
            self._closing = True
            self._wake(self._workers)
        for thread in self._threads:
            thread.join()

    # Workers

    def _work(self) -> None:
        batch: Batch | None = None
        outcome: Outcome | None = None
        bed = threading.Lock()
        bed.acquire()
        while True:
            with self._lock:
                now = time.perf_counter()
                if batch is not None and outcome is not None:
                    self._progress.settle(batch, outcome, now)
                    self._order.free += 1
                batch, outcome = self._take(now), None
                self._tell()
                if batch is None:
                    if self._closing and self._progress.alive == 0:
                        # While a sample is alive somebody is awake, and comes here in the end.
                        self._wake(self._workers)
                        return
                    self._sleep(bed)
                    continue
            outcome = run(batch, self._max_pixels, self._metrics)

    # Everything below holds the lock

    def _tell(self) -> None:
        seen = self._progress.collect()
        if seen:
            self._report(seen)

    def _line(self, engine: Engine) -> Line:
        """The line of `engine`. A request may still hold one that was retired meanwhile, or was never
        opened; such a line goes with its last sample."""
        found = self._order.lines.get(engine)
        if found is None:
            costs = self._costs.get(engine) or CostTable.unmeasured(engine.exits)
            found = self._order.lines[engine] = Line(engine, costs, passing=True)
        return found

    def _check(self, low: bool, size: int) -> None:
        wait = sum(line.wait(low) for line in self._order.lines.values()) / self._workers
        if wait > self._max_wait:
            raise OverCapacityError(
                f"The server is busy: a new image would wait for {1000 * wait:.0f} ms.",
                wait - self._max_wait,
            )
        if self._progress.bytes and self._progress.bytes + size > self._max_bytes:
            raise OverCapacityError("The server has as many bytes waiting as it allows.", wait)

    def _take(self, now: float) -> Batch | None:
        """The next batch for the worker that asks, None if nothing waits."""
        if not self._progress.alive:
            return None
        while (chosen := self._order.choose(now)) is not None:
            queue, urgent = chosen
            samples = (
                self._take_files(queue)
                if queue.stage == 0 and urgent is None
                else self._take_rows(queue, urgent, now)
            )
            if samples:
                self._order.free -= 1
                if self._sleepers and any(any(line.waiting) for line in self._order.lines.values()):
                    self._wake(1)
                return Batch(queue.line, queue.stage, samples, now)
        return None

    def _take_files(self, queue: Queue) -> list[Sample]:
        """Small files until they make a batch for stage 1, or one large one."""
        limit = self._order.share(queue)
        samples: list[Sample] = []
        spent = 0.0
        while queue.waiting and len(samples) < limit:
            sample = queue.head()
            spent += self._order.decoding.guess(sample.size)
            if samples and spent > DECODE_TOGETHER:
                break
            self._progress.dequeue(sample)
            samples.append(sample)
        return samples

    def _take_rows(self, queue: Queue, urgent: Sample | None, now: float) -> list[Sample]:
        """A batch in the queue's order, the urgent sample first; no larger than its deadlines allow."""
        limit = self._order.share(queue)
        samples: list[Sample] = []
        earliest = float("inf")
        while queue.waiting and len(samples) < limit:
            sample = urgent if urgent is not None and urgent.queue is queue else queue.head()
            deadline = sample.job.deadline
            if deadline is not None and self._too_late(sample, deadline, now):
                self._progress.run_out(sample)
                continue
            if deadline is not None:
                earliest = min(earliest, deadline)
            if samples and now + self._order.seconds(queue, len(samples) + 1) > earliest:
                break
            self._progress.dequeue(sample)
            samples.append(sample)
        return samples

    def _too_late(self, sample: Sample, deadline: float, now: float) -> bool:
        if sample.best is None:
            # Without any answer it is worth trying until the end.
            return now >= deadline
        return now + sample.job.line.seconds(sample.stage, 1) > deadline

    def _sleep(self, bed: threading.Lock) -> None:
        """Wait until woken; `bed` is the worker's own lock, which is locked."""
        self._sleepers.append(bed)
        self._lock.release()
        bed.acquire()
        self._lock.acquire()

    def _wake(self, workers: int) -> None:
        for _ in range(min(workers, len(self._sleepers))):
            # Last in, first out, unlike a Condition: its caches are warm still.
            self._sleepers.pop().release()

    def _depth(self, name: str, stage: int) -> int:
        with self._lock:
            return sum(
                line.depth(stage)
                for line in self._order.lines.values()
                if line.engine.manifest.name == name and line.engine.exits >= stage
            )
