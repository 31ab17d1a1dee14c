"""State changes of samples: admitted, queued for the next stage, answered, failed, expired, dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from serving.errors import IMAGE_ERRORS, DeadlineExceededError
from serving.inference.engine import Prediction, Reason
from serving.scheduling.execution import Batch, Outcome
from serving.scheduling.forecast import Forecast
from serving.scheduling.queues import Block, Sample, SampleEvent, ScheduledRequest
from serving.scheduling.selection import BatchSelector
from serving.scheduling.shadows import shadow_of
from serving.telemetry.metrics import Metrics


class SampleTracker:
    """The unfinished samples. Guarded by the scheduler's lock.

    `in_flight` is their number, `bytes` the size of those that still wait in their first queue.
    """

    def __init__(self, selector: BatchSelector, metrics: Metrics) -> None:
        self.in_flight = 0
        self.bytes = 0
        self._selector = selector
        self._metrics = metrics
        self._events: list[SampleEvent] = []

    def admit(self, request: ScheduledRequest, size: int, now: float) -> None:
        """Queue the samples of `request`, of `size` bytes in total; its queues and forecast are set."""
        self.bytes += size
        self.in_flight += len(request.samples)
        request.queues.in_flight += len(request.samples)
        if not request.low_priority:
            request.queues.admitted += len(request.samples)
        for sample in request.samples:
            sample.expected = request.forecast.remaining(sample.stage or request.first_stage)
            if sample.file is not None:
                sample.expected += self._selector.decode_costs.estimate(sample.size)
            sample.held = sample.size
            request.queues.backlog[request.low_priority] += sample.expected
            self._enqueue(sample, now)

    def complete_batch(self, batch: Batch, outcome: Outcome, now: float) -> None:
        """Answer the samples that leave, and queue the others for the next stage."""
        queues, stage, samples = batch.queues, batch.stage, batch.samples
        # The samples of a batch come from one queue, so they have one priority.
        queues.busy_s[samples[0].request.low_priority] += now - batch.started_at
        for row, error in outcome.errors.items():
            self._fail(samples[row], error)
        if stage == 0:
            for sample in samples:
                if sample.decoding:
                    self._selector.decode_costs.observe(sample.size, sample.decoding)
                sample.file = None
                if not sample.finished:
                    self._enqueue_next_stage(sample, outcome.block, sample.row, now)
            return
        elapsed = now - batch.started_at
        queues.observe(stage, len(samples), elapsed)
        self._update_forecasts(batch, outcome.leaves)
        for row, sample in enumerate(samples):
            sample.computing += elapsed
            prediction = outcome.predictions[row]
            if sample.finished:
                pass
            elif sample.answered or outcome.leaves[row]:
                self._report_exit(sample, prediction, outcome.block, row, now)
            else:
                self._continue(sample, prediction, outcome.block, row, now)
            if sample.finished:
                # The worker has read them.
                sample.block = sample.image = None

    def expire(self, sample: Sample) -> None:
        """End `sample`, whose deadline leaves no time to go deeper, with its best prediction so far."""
        if sample.answered:
            self._notify(sample, last=True)
            self._finish(sample)
            return
        self._metrics.expired(sample.request.engine.manifest.name)
        if sample.best is None:
            self._fail(
                sample,
                DeadlineExceededError("The deadline came before the first exit was reached."),
            )
        else:
            # Why an answer has no label matters more than why it came now.
            reason: Reason = "unsure" if sample.best.unsure else "deadline"
            prediction = replace(sample.best, reason=reason)
            self._notify(sample, prediction, answered=True, last=True)
            self._finish(sample)

    def drop(self, samples: Iterable[Sample]) -> None:
        """End those of `samples` that are not finished, without an event."""
        for sample in samples:
            if not sample.finished:
                self._finish(sample)

    def dequeue(self, sample: Sample) -> None:
        """Take `sample` out of its queue."""
        assert sample.queue is not None
        sample.queue.remove(sample)
        if sample.held:
            self.bytes -= sample.held
            sample.held = 0

    def collect(self) -> list[SampleEvent]:
        """The events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def _notify(
        self,
        sample: Sample,
        prediction: Prediction | None = None,
        *,
        answered: bool = False,
        last: bool = False,
        error: Exception | None = None,
    ) -> None:
        """Note what happened to `sample`."""
        spent = (sample.waited, sample.computing)
        self._events.append(SampleEvent(sample, *spent, prediction, answered, last, error))

    def _report_exit(
        self,
        sample: Sample,
        prediction: Prediction | None,
        block: Block | None,
        row: int,
        now: float,
    ) -> None:
        """Report the answer or, for a request that runs all exits, an exit after it."""
        is_answer = not sample.answered
        sample.answered = True
        last = not sample.request.run_all_exits or sample.stage == sample.request.engine.exits
        options = sample.request.shadow
        if options is not None and last and block is not None and prediction is not None:
            sample.shadow = shadow_of(sample, options, prediction, block, row)
        self._notify(sample, prediction, answered=is_answer, last=last)
        if last:
            self._finish(sample)
        else:
            self._enqueue_next_stage(sample, block, row, now)

    def _continue(
        self,
        sample: Sample,
        prediction: Prediction | None,
        block: Block | None,
        row: int,
        now: float,
    ) -> None:
        request = sample.request
        sample.best = prediction
        if (
            request.deadline is not None
            and now + request.queues.seconds(sample.stage + 1, 1) > request.deadline
        ):
            self.expire(sample)
            return
        if request.report_all_exits:
            self._notify(sample, prediction)
        self._enqueue_next_stage(sample, block, row, now)

    def _enqueue_next_stage(
        self, sample: Sample, block: Block | None, row: int, now: float
    ) -> None:
        sample.stage = sample.stage + 1 if sample.stage else sample.request.first_stage
        sample.block, sample.row = block, row
        if sample.image is not None and sample.stage > sample.request.engine.last_image_stage:
            sample.image = None
        expected = sample.request.forecast.remaining(sample.stage)
        sample.request.queues.backlog[sample.request.low_priority] += expected - sample.expected
        sample.expected = expected
        self._enqueue(sample, now)

    def _fail(self, sample: Sample, error: Exception) -> None:
        """End `sample` by `error`; one that is not of this image alone ends its whole request."""
        if not sample.finished:
            self._notify(sample, last=True, error=error)
            self.drop([sample] if isinstance(error, IMAGE_ERRORS) else sample.request.samples)

    def _finish(self, sample: Sample) -> None:
        """Nothing more happens to `sample`. If a worker is running it, the result is ignored."""
        if sample.queue is not None:
            self.dequeue(sample)
            # Only here: a worker that runs the sample still reads them.
            sample.file = sample.image = sample.block = None
        sample.finished = True
        self.in_flight -= 1
        queues = sample.request.queues
        queues.backlog[sample.request.low_priority] -= sample.expected
        queues.in_flight -= 1
        if not sample.request.low_priority:
            queues.finished += 1
        if queues.in_flight == 0:
            # Rounding errors must not add up.
            queues.backlog = [0.0, 0.0]
            if queues.retiring:
                self._selector.remove(queues)
                for notify in queues.on_empty:
                    notify()

    def _update_forecasts(self, batch: Batch, leaves: list[bool]) -> None:
        """Count who left by policy; samples with a deadline count too, since their policy decided."""
        counts: dict[Forecast, list[int]] = {}
        for sample, leaving in zip(batch.samples, leaves, strict=True):
            count = counts.setdefault(sample.request.forecast, [0, 0])
            count[0] += 1
            count[1] += leaving
        for forecast, (reached, left) in counts.items():
            forecast.observe(batch.stage, reached, left)

    def _enqueue(self, sample: Sample, now: float) -> None:
        sample.enqueued_at = now
        request = sample.request
        request.queues.queue(sample.stage, request.low_priority).add(sample)
        if request.deadline is not None and not request.low_priority:
            self._selector.add_deadline(sample, request.deadline, self.in_flight)
