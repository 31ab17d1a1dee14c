"""Compares shadows with each policy's promise, and raises thresholds where it is broken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from exports.bundle.errors import BundleError
from exports.bundle.reader import load_table
from serving.models.manager import ModelManager
from serving.models.registry import LoadedModel, ModelRegistry
from serving.periodic import in_background, repeat
from serving.scheduling.options import ShadowOptions, ShadowResult
from serving.shadow.checks import ExitCheck, PolicyCheck, Raise
from serving.shadow.metrics import ShadowMetrics
from serving.shadow.promises import Promise, promises

log = logging.getLogger("offramp.shadow")
# How often the promises are compared; a raise is in force so much later at most.
INTERVAL_S = 0.5
MAX_RAISES = 20


@dataclass(frozen=True)
class RaiseEvent:
    """A raise, and when it came into force."""

    at: datetime
    found: Raise


@dataclass
class _Watched:
    """The checks of the model with the revision of its policy that they are of; `check` is None if the
    calibration table cannot be read."""

    model: LoadedModel
    check: PolicyCheck | None
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    raises: deque[RaiseEvent] = field(default_factory=lambda: deque(maxlen=MAX_RAISES))

    def is_of(self, model: LoadedModel) -> bool:
        """Whether this is the engine and the policy of `model`."""
        return self.model.engine is model.engine and self.model.revision == model.revision


@dataclass(frozen=True)
class ShadowStatus:
    """The checked exits of one model since `started`, when its policy was set, and the last raises, the
    latest first. `set_thresholds` are those of the policy as it was set."""

    started: datetime
    exits: Sequence[ExitCheck]
    set_thresholds: Sequence[float]
    raises: Sequence[RaiseEvent]


class ShadowMonitor:
    """The shadow checks of all models. Used on the event loop only."""

    def __init__(
        self, models: ModelRegistry, manager: ModelManager, metrics: ShadowMetrics, share: float
    ) -> None:
        """`share` is that of the samples that left early."""
        self._models = models
        self._manager = manager
        self._metrics = metrics
        self._share = share
        self._watched: dict[str, _Watched] = {}

    def options(self, model: LoadedModel) -> ShadowOptions | None:
        """The shadows of a request under the policy in force of `model`; None while exits are not checked."""
        watched = self._watched.get(model.name)
        if watched is None or watched.check is None or not watched.check.exits:
            return None
        if not watched.is_of(model):
            return None
        loop = asyncio.get_running_loop()
        return ShadowOptions(
            self._share,
            partial(_post, loop, partial(self._add, watched, model.revision)),
            partial(self._metrics.dropped, model.name),
        )

    def status(self, model: LoadedModel) -> ShadowStatus | None:
        """The checks of `model`; None until they have begun, or without a readable table."""
        watched = self._watched.get(model.name)
        if watched is None or watched.check is None or not watched.is_of(model):
            return None
        return ShadowStatus(
            watched.started,
            tuple(watched.check.exits.values()),
            (model.raised_from or model.policy).thresholds,
            tuple(reversed(watched.raises)),
        )

    async def update(self) -> None:
        """Follow the models that are served, and raise the thresholds that their shadows call for."""
        served = {model.name: model for model in self._models}
        for name in self._watched.keys() - served.keys():
            self._end(self._watched.pop(name))
        for name, model in served.items():
            watched = self._watched.get(name)
            if watched is None or not watched.is_of(model):
                await self._begin(model)
            elif watched.check is not None:
                await self._compare(watched, watched.check)

    def _add(self, watched: _Watched, revision: int, result: ShadowResult) -> None:
        # Images that left under thresholds before a raise say nothing of those after it.
        if watched.check is None or watched.model.revision != revision:
            return
        self._metrics.checked(watched.model.name, result.exit_, result.agrees)
        watched.check.add(result)

    async def _begin(self, model: LoadedModel) -> None:
        old = self._watched.pop(model.name, None)
        if old is not None:
            self._end(old)
        policy = model.raised_from or model.policy
        try:
            found = await asyncio.to_thread(_promises, model)
        except BundleError as error:
            log.warning("the exits of %s are not checked: %s", model.name, error)
            self._watched[model.name] = _Watched(model, None)
            return
        check = PolicyCheck(found, policy.thresholds)
        self._watched[model.name] = _Watched(model, check)
        self._metrics.watched(model.name, {one.exit_: one.promised for one in found})

    async def _compare(self, watched: _Watched, check: PolicyCheck) -> None:
        name = watched.model.name
        raises = check.needed_raises()
        if raises:
            least = {one.exit_: one.after for one in raises}
            model = await self._manager.raise_thresholds(watched.model, least)
            if model is None:
                return  # Another policy or bundle came first.
            watched.model = model
            check.apply(raises)
            for one in raises:
                watched.raises.append(RaiseEvent(datetime.now(UTC), one))
                self._metrics.raised(name, one.exit_)
                log.warning("%s: %s", name, describe(one))
        for exit_, exit_check in check.exits.items():
            span = exit_check.sequences.lowest()
            self._metrics.limit(name, exit_, 1.0 if span is None else span.high)

    def _end(self, watched: _Watched) -> None:
        if watched.check is not None:
            self._metrics.ended(watched.model.name, list(watched.check.exits))


def describe(found: Raise) -> str:
    """A raise in a sentence."""
    span = found.span
    what = (
        f"exit {found.exit_} was closed, its threshold was {found.before:g}"
        if found.closed
        else f"the threshold of exit {found.exit_} was raised from {found.before:g} to {found.after:g}"
    )
    return (
        f"{what}: of its last {span.samples:,} shadows {span.agreed:,} agreed with full depth, at most "
        f"{span.high:.2%} of all, and it promised {found.promised:.2%}."
    )


@contextlib.asynccontextmanager
async def checking_shadows(monitor: ShadowMonitor | None) -> AsyncIterator[None]:
    """Call `monitor.update` every INTERVAL_S within the block, if there is one."""
    if monitor is None:
        yield
        return
    await monitor.update()
    failed = "a shadow check failed; the checks go on"
    async with in_background(repeat(INTERVAL_S, monitor.update, log, failed)):
        yield


def _promises(model: LoadedModel) -> list[Promise]:
    manifest = model.engine.manifest
    policy = model.raised_from or model.policy
    return promises(policy, load_table(model.path, manifest), manifest.scaling)


def _post(loop: asyncio.AbstractEventLoop, add: partial[None], result: ShadowResult) -> None:
    """Call `add` with `result` on `loop`, from any thread."""
    # A closed loop has no checks left.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(add, result)
