"""What becomes of samples: they go deeper, leave, are given up, run out of time or fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from serving.errors import DeadlineExceededError
from serving.inference.engine import Prediction
from serving.scheduling.execution import Batch, Outcome
from serving.scheduling.forecast import Forecast
from serving.scheduling.samples import Block, Job, Sample, SampleEvent
from serving.scheduling.selection import BatchSelector
from serving.telemetry.metrics import Metrics


class SampleTracker:
    """The samples that are on their way. Belongs to the scheduler's lock.

    `alive` is how many there are, `bytes` what those hold that wait for the first time.
    """

    def __init__(self, order: BatchSelector, metrics: Metrics) -> None:
        self.alive = 0
        self.bytes = 0
        self._selector = order
        self._metrics = metrics
        self._outbox: list[SampleEvent] = []

    def admit(self, job: Job, size: int, now: float) -> None:
        """Queue the samples of `job`, of `size` bytes together, whose line and forecast are set."""
        self.bytes += size
        self.alive += len(job.samples)
        job.queues.alive += len(job.samples)
        for sample in job.samples:
            sample.expected = job.forecast.remaining(sample.stage)
            if sample.file is not None:
                sample.expected += self._selector.decoding.guess(sample.size)
            sample.held = sample.size
            job.queues.backlog[job.low_priority] += sample.expected
            self._enqueue(sample, now)

    def settle(self, batch: Batch, outcome: Outcome, now: float) -> None:
        """Send off those who leave, queue those who stay."""
        queues, stage, samples = batch.queues, batch.stage, batch.samples
        for row, error in outcome.errors.items():
            self._fail(samples[row], error)
        if stage == 0:
            for sample in samples:
                if sample.decoding:
                    self._selector.decoding.saw(sample.size, sample.decoding)
                sample.file = None
                if not sample.over:
                    self._go_on(sample, outcome.block, sample.row, now)
            return
        elapsed = now - batch.taken
        queues.saw(stage, len(samples), elapsed)
        self._learn(batch, outcome.leaves)
        for row, sample in enumerate(samples):
            sample.computing += elapsed
            if sample.over:
                sample.block = None
                continue
            found = outcome.predictions[row]
            if sample.left:
                self._pass(sample, found, outcome.block, row, now)
            elif outcome.leaves[row]:
                self._leave(sample, found, outcome.block, row, now)
            else:
                self._stay(sample, found, outcome.block, row, now)

    def run_out(self, sample: Sample) -> None:
        """End `sample` because its deadline leaves no time to go deeper."""
        if sample.left:
            self._outbox.append(SampleEvent(sample, last=True))
            self._finish(sample)
            return
        self._metrics.expired(sample.job.engine.manifest.name)
        if sample.best is None:
            self._fail(
                sample,
                DeadlineExceededError("The deadline came before the first exit was reached."),
            )
        else:
            cut = replace(sample.best, reason="deadline")
            self._outbox.append(SampleEvent(sample, cut, left=True, last=True))
            self._finish(sample)

    def end(self, samples: Iterable[Sample]) -> None:
        """Give up those of `samples` that are not over."""
        for sample in samples:
            if not sample.over:
                self._finish(sample)

    def dequeue(self, sample: Sample) -> None:
        """Take `sample` out of its queue."""
        assert sample.queue is not None
        sample.queue.remove(sample)
        if sample.held:
            self.bytes -= sample.held
            sample.held = 0

    def collect(self) -> list[SampleEvent]:
        """What became of samples since this was last asked: a list of the caller's own."""
        events, self._outbox = self._outbox, []
        return events

    def _leave(
        self, sample: Sample, found: Prediction | None, block: Block | None, row: int, now: float
    ) -> None:
        sample.left = True
        last = not sample.job.run_all_exits or sample.stage == sample.job.engine.exits
        self._outbox.append(SampleEvent(sample, found, left=True, last=last))
        if last:
            self._finish(sample)
        else:
            self._go_on(sample, block, row, now)

    def _pass(
        self, sample: Sample, found: Prediction | None, block: Block | None, row: int, now: float
    ) -> None:
        """Its answer stands already; only its request's curiosity goes on."""
        last = sample.stage == sample.job.engine.exits
        self._outbox.append(SampleEvent(sample, found, last=last))
        if last:
            self._finish(sample)
        else:
            self._go_on(sample, block, row, now)

    def _stay(
        self, sample: Sample, found: Prediction | None, block: Block | None, row: int, now: float
    ) -> None:
        job = sample.job
        sample.best = found
        if (
            job.deadline is not None
            and now + job.queues.seconds(sample.stage + 1, 1) > job.deadline
        ):
            self.run_out(sample)
            return
        if job.report_all_exits:
            self._outbox.append(SampleEvent(sample, found))
        self._go_on(sample, block, row, now)

    def _go_on(self, sample: Sample, block: Block | None, row: int, now: float) -> None:
        sample.stage += 1
        sample.block, sample.row = block, row
        expected = sample.job.forecast.remaining(sample.stage)
        sample.job.queues.backlog[sample.job.low_priority] += expected - sample.expected
        sample.expected = expected
        self._enqueue(sample, now)

    def _fail(self, sample: Sample, error: Exception) -> None:
        if not sample.over:
            self._outbox.append(SampleEvent(sample, last=True, error=error))
            self.end(sample.job.samples)

    def _finish(self, sample: Sample) -> None:
        """Nothing more happens to `sample`; if a worker has it just now, the result is ignored."""
        if sample.queue is not None:
            self.dequeue(sample)
            # Not while a worker reads them.
            sample.file = sample.block = None
        sample.over = True
        self.alive -= 1
        queues = sample.job.queues
        queues.backlog[sample.job.low_priority] -= sample.expected
        queues.alive -= 1
        if queues.alive == 0:
            # Rounding must not add up over the days.
            queues.backlog = [0.0, 0.0]
            if queues.passing:
                self._selector.forget(queues)
                for notify in queues.when_empty:
                    notify()

    def _learn(self, batch: Batch, leaves: list[bool]) -> None:
        """Tell the forecasts who left; samples with a deadline too, since their policy decided."""
        counts: dict[Forecast, list[int]] = {}
        for sample, left in zip(batch.samples, leaves, strict=True):
            count = counts.setdefault(sample.job.forecast, [0, 0])
            count[0] += 1
            count[1] += left
        for forecast, (reached, leaving) in counts.items():
            forecast.saw(batch.stage, reached, leaving)

    def _enqueue(self, sample: Sample, now: float) -> None:
        sample.since = now
        job = sample.job
        job.queues.queue(sample.stage, job.low_priority).add(sample)
        if job.deadline is not None and not job.low_priority:
            self._selector.watch(sample, job.deadline, self.alive)
