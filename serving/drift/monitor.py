"""Tests the answers of every model for drift, in a thread of its own.

A request adds one entry to a queue. The thread tests what has come about once a second.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event, Thread

from exports.bundle.errors import BundleError
from exports.bundle.reader import load_table
from serving.budgets.bucket import Bucket
from serving.drift.metrics import DriftMetrics
from serving.drift.reference import Answers, Reference
from serving.drift.state import DriftState, DriftStatus
from serving.inference.engine import Prediction
from serving.models.registry import LoadedModel, ModelRegistry

log = logging.getLogger("offramp.drift")
INTERVAL_S = 1.0
# Requests that wait to be tested; the oldest are dropped.
MAX_QUEUED_REQUESTS = 10_000
# Answers tested per model: this many a second, after MAX_BURST at once. It bounds false alarms over time,
# whatever the traffic, and the CPU time of the tests.
ANSWERS_PER_S = 5.0
MAX_BURST = 10_000.0


@dataclass
class _Watched:
    """A model with its tests and what they have found; both are None if its calibration table cannot be
    read."""

    model: LoadedModel
    budget: Bucket
    state: DriftState | None
    status: DriftStatus | None = None


class DriftMonitor:
    """Compares answers with each model's calibration table under the policy in force.

    A new policy and a new bundle start the tests again.
    """

    def __init__(self, models: ModelRegistry, metrics: DriftMetrics) -> None:
        self._models = models
        self._metrics = metrics
        # Seconds of the latest update.
        self._now = 0.0
        self._queue: deque[tuple[LoadedModel, Sequence[Prediction]]] = deque(
            maxlen=MAX_QUEUED_REQUESTS
        )
        # Changed by one thread only.
        self._watched: dict[str, _Watched] = {}
        self._closing = Event()
        self._thread = Thread(target=self._run, name="offramp-drift", daemon=True)

    def start(self) -> None:
        """Start the thread, which calls `update`."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def observe(self, model: LoadedModel, predictions: Sequence[Prediction]) -> None:
        """`model` answered a request under its own policy and without a deadline. Any thread may call it."""
        self._queue.append((model, predictions))

    def status(self, model: LoadedModel) -> DriftStatus | None:
        """What the tests of `model` have found; None if they have not started. Any thread may call it."""
        watched = self._watched.get(model.name)
        return watched.status if watched is not None and watched.model is model else None

    def update(self, now: float) -> None:
        """Test what has come, at `now` of `time.monotonic()`."""
        self._now = now
        self._follow_models()
        answered: dict[str, list[Prediction]] = {}
        while self._queue:
            model, predictions = self._queue.popleft()
            watched = self._watched.get(model.name)
            # Answers under an earlier policy still come after a change.
            if watched is not None and watched.model is model:
                answered.setdefault(model.name, []).extend(predictions)
        for name, predictions in answered.items():
            self._test(self._watched[name], predictions)

    def _run(self) -> None:
        while not self._closing.wait(INTERVAL_S):
            try:
                self.update(time.monotonic())
            except Exception:
                log.exception("a test for drift failed; the tests go on")

    def _follow_models(self) -> None:
        """Watch the models that are served now, each under its policy in force."""
        served = {model.name: model for model in self._models}
        for name in self._watched.keys() - served.keys():
            self._end(self._watched.pop(name))
        for name, model in served.items():
            watched = self._watched.get(name)
            if watched is not None and watched.model is model:
                continue
            if watched is not None:
                self._end(watched)
            budget = self._bucket() if watched is None else watched.budget
            self._watched[name] = _Watched(model, budget, _state(model))
            self._report(self._watched[name], 0)

    def _bucket(self) -> Bucket:
        """How many answers of a model may be tested: ANSWERS_PER_S on average, at most MAX_BURST at once."""
        return Bucket(ANSWERS_PER_S, MAX_BURST, lambda: self._now)

    def _test(self, watched: _Watched, predictions: list[Prediction]) -> None:
        # The first ones, so that which are tested does not depend on what they are.
        count = int(watched.budget.take(min(len(predictions), int(watched.budget.level))))
        if watched.state is None or count == 0:
            return
        began = watched.state.update(Answers.of_predictions(predictions[:count]))
        self._report(watched, count)
        if began and watched.status is not None:
            log.warning("drift of %s: %s", watched.model.name, watched.status.sentence)

    def _end(self, watched: _Watched) -> None:
        if watched.status is not None:
            for signal in watched.status.signals:
                self._metrics.ended(watched.model.name, signal.signal)

    def _report(self, watched: _Watched, tested: int) -> None:
        if watched.state is None:
            return
        name = watched.model.name
        watched.status = status = watched.state.status()
        for signal in status.signals:
            self._metrics.found(name, signal.signal, signal.drifting, signal.evidence)
        self._metrics.tested(name, tested)


def _state(model: LoadedModel) -> DriftState | None:
    manifest = model.engine.manifest
    try:
        table = load_table(model.path, manifest)
    except BundleError as error:
        log.warning("drift of %s is not tested: %s", model.name, error)
        return None
    return DriftState(Reference(table, model.policy, manifest))
