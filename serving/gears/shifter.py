"""Shifts the gears of all models: observes them, calls the controller, and tells what it did."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from serving.gears.controller import INTERVAL_S, Observation, Reason, State, step
from serving.gears.latencies import Latencies
from serving.gears.metrics import GearMetrics
from serving.models.gears import GearBox
from serving.models.registry import LoadedModel, ModelRegistry
from serving.periodic import in_background, repeat
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import Load
from serving.telemetry.metrics import Metrics

log = logging.getLogger("offramp.gears")
MAX_SHIFTS = 20


@dataclass(frozen=True)
class Shift:
    """From the gear `before` to the gear `after`; down for a long `wait` or a high `p99`, up when `calm`."""

    at: datetime
    before: int
    after: int
    reason: Reason


@dataclass
class _Watched:
    """A model's controller. `load` and `refused` are the totals at the last update."""

    box: GearBox
    costs: tuple[float, ...]
    state: State
    load: Load
    refused: float
    latencies: Latencies = field(default_factory=Latencies)
    shifts: deque[Shift] = field(default_factory=lambda: deque(maxlen=MAX_SHIFTS))
    p99_s: float | None = None


@dataclass(frozen=True)
class GearStatus:
    """The gears of one model, the `current` one, the p99 in it as far as it has enough answers, and the last
    shifts, the latest first."""

    box: GearBox
    p99_s: float | None
    shifts: Sequence[Shift]


class GearShifter:
    """The controllers of all models that have gears. Used on the event loop only.

    `cpu_s` are the CPU seconds of the process so far. What exceeds the workers' seconds is the work of the
    event loop, which the images share.
    """

    def __init__(
        self,
        models: ModelRegistry,
        dispatcher: Dispatcher,
        metrics: Metrics,
        *,
        target_s: float,
        workers: int,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._models = models
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._gear_metrics = GearMetrics(metrics.registry)
        self._target_s = target_s
        self._workers = workers
        self._cpu_s = cpu_s
        self._cpu_before = cpu_s()
        self._watched: dict[str, _Watched] = {}

    def answered(self, model: LoadedModel, now: float, seconds: float) -> None:
        """A request of normal priority was answered at `now` of `time.monotonic()`, `seconds` after its
        admission."""
        watched = self._watched.get(model.name)
        if watched is not None:
            watched.latencies.add(now, seconds)

    def status(self, model: LoadedModel) -> GearStatus | None:
        """The gears of `model`; None until they are observed."""
        watched = self._watched.get(model.name)
        if watched is None or watched.box is not model.gears:
            return None
        return GearStatus(watched.box, watched.p99_s, tuple(reversed(watched.shifts)))

    def update(self, now: float) -> None:
        """Observe every model, and shift its gear if the controller says so, at `now` of
        `time.monotonic()`."""
        cpu_s = self._cpu_s()
        spent, self._cpu_before = cpu_s - self._cpu_before, cpu_s
        self._follow_models(now)
        loads = {
            name: load
            for name, model in self._served().items()
            if (load := self._dispatcher.load(model.engine)) is not None
        }
        changes = {
            name: _difference(load, watched.load)
            for name, load in loads.items()
            if (watched := self._watched.get(name)) is not None
        }
        busy = sum(change.busy_s + change.low_busy_s for change in changes.values())
        finished = sum(change.finished for change in changes.values())
        around_s = max(spent - busy, 0.0) / finished if finished else 0.0
        for name, change in changes.items():
            others = sum(other.busy_s for key, other in changes.items() if key != name)
            work_s = change.busy_s + around_s * change.finished
            self._update(name, loads[name], change, work_s, others, now)

    def _update(
        self, name: str, load: Load, change: Load, work_s: float, others_s: float, now: float
    ) -> None:
        watched = self._watched[name]
        state, elapsed = watched.state, now - watched.state.at
        if elapsed <= 0:
            return
        refused = self._metrics.refused_for_load(name)
        watched.p99_s = watched.latencies.p99(now, state.shifted_at)
        seen = Observation(
            now=now,
            arrivals=change.admitted + refused - watched.refused,
            finished=change.finished,
            work_s=work_s,
            workers=max(self._workers - others_s / elapsed, 0.0),
            wait_s=load.wait,
            p99_s=watched.p99_s,
            slowdown=load.slowdown,
        )
        watched.load, watched.refused = load, refused
        watched.state = step(state, seen, watched.costs, self._target_s)
        if watched.state.gear != state.gear:
            self._shift(name, watched, seen)

    def _shift(self, name: str, watched: _Watched, seen: Observation) -> None:
        box, before, after = watched.box, watched.box.current, watched.state.gear
        box.current = after
        watched.shifts.append(Shift(datetime.now(UTC), before, after, watched.state.reason))
        watched.p99_s = None
        self._gear_metrics.shifted(name, after, "down" if after > before else "up")
        log.info(
            "%s: gear %d to %d of %d for %s (predicted wait %.0f ms, p99 %s)",
            name,
            before,
            after,
            len(box.gears) - 1,
            watched.state.reason,
            1000 * seen.wait_s,
            "unknown" if seen.p99_s is None else f"{1000 * seen.p99_s:.0f} ms",
        )

    def _follow_models(self, now: float) -> None:
        """Watch the models that are served now, each with its gears; new gears begin at gear 0."""
        served = self._served()
        for name in self._watched.keys() - served.keys():
            del self._watched[name]
            self._gear_metrics.ended(name)
        for name, model in served.items():
            watched = self._watched.get(name)
            if watched is not None and watched.box is model.gears:
                continue
            load = self._dispatcher.load(model.engine)
            if load is None or model.gears is None:
                continue
            refused = self._metrics.refused_for_load(name)
            costs = _costs(model.gears, model.exit_seconds)
            self._watched[name] = _Watched(model.gears, costs, State(now), load, refused)
            self._gear_metrics.watched(name, model.gears.current)

    def _served(self) -> dict[str, LoadedModel]:
        return {model.name: model for model in self._models if model.gears is not None}


@contextlib.asynccontextmanager
async def shifting_gears(shifter: GearShifter | None) -> AsyncIterator[None]:
    """Call `shifter.update` every INTERVAL_S within the block, if there is one."""
    if shifter is None:
        yield
        return

    async def update() -> None:
        shifter.update(time.monotonic())

    failed = "a shift of gears failed; the gears stay until the next one"
    async with in_background(repeat(INTERVAL_S, update, log, failed)):
        yield


def _costs(box: GearBox, exit_seconds: Sequence[float]) -> tuple[float, ...]:
    """Seconds of stages for an image in each gear; none above the gear before, whatever was measured."""
    seconds = [float(np.dot(gear.exit_shares, exit_seconds)) for gear in box.gears]
    return tuple(np.minimum.accumulate(seconds).tolist())


def _difference(load: Load, before: Load) -> Load:
    return Load(
        load.admitted - before.admitted,
        load.finished - before.finished,
        load.busy_s - before.busy_s,
        load.low_busy_s - before.low_busy_s,
        load.wait,
        load.slowdown,
    )
