"""Starting, promoting and rolling back the canaries of all models."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from exports.bundle.errors import BundleError
from offramp.errors import OfframpError
from serving.canary.canary import Canary, Plan, Trial, is_fault
from serving.canary.metrics import CanaryMetrics, Outcome
from serving.canary.mirror import Mirror
from serving.canary.report import SENTENCES, EndedReport, report
from serving.errors import BadBundleError, CanaryConflictError, NotFoundError, ServingError
from serving.inference.engine import Prediction
from serving.models.manager import ModelManager
from serving.models.registry import LoadedModel, ModelRegistry
from serving.models.repository import Repository
from serving.recording.recorder import Images
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import BatchResult
from serving.telemetry.metrics import Metrics

log = logging.getLogger("offramp.canary")
# Ended canaries of each model that are remembered.
MAX_ENDED = 20


class Canaries:
    """At most one canary for each model. `running` is by name and empty without any. Used on the event loop
    only."""

    def __init__(
        self,
        models: ModelRegistry,
        manager: ModelManager,
        repository: Repository,
        dispatcher: Dispatcher,
        metrics: Metrics,
        *,
        latency_target: bool,
    ) -> None:
        """With `latency_target` there are no canaries: the versions would differ by their gears."""
        self.running: dict[str, Canary] = {}
        self._ended: dict[str, deque[EndedReport]] = {}
        self._models = models
        self._manager = manager
        self._repository = repository
        self._latency_target = latency_target
        self._metrics = CanaryMetrics(metrics.registry)
        self._mirror = Mirror(dispatcher, self._metrics, self._judge)
        # A bundle outside the repository that was given at the start.
        self._given: Path | None = None
        manager.on_removed = self._stable_removed

    def get(self, name: str) -> Canary:
        """The canary of the model `name`; raises NotFoundError."""
        canary = self.running.get(self._models.get(name).name)
        if canary is None:
            raise NotFoundError("This model has no canary.")
        return canary

    def ended(self, name: str) -> Sequence[EndedReport]:
        """The last canaries of the model `name` that ended, the latest first."""
        return tuple(reversed(self._ended.get(name, ())))

    def start_first(self, path: Path, plan: Plan) -> None:
        """Start the bundle in `path` in the caller's thread, before the first request. Raises BundleError and
        the like."""
        self._given = path
        model = self._manager.open_first_beside(path)
        if model.name not in self._models:
            raise BundleError(f"{path}: no model is called {model.name}, so it cannot be a canary.")
        problem = _difference(self._models.get(model.name), model)
        if problem is not None:
            raise BundleError(f"{path}: {problem}")
        self._run(Canary(model, self._models.get(model.name), path.name, plan))

    async def start(self, name: str, bundle: str, plan: Plan) -> Canary:
        """Start the bundle in the subdirectory `bundle` of the repository as the canary of `name`.

        Raises NotFoundError, BadBundleError, and CanaryConflictError if `name` has one already, or with a
        latency target.
        """
        self._check_startable(name)
        path = await asyncio.to_thread(self._find, bundle)
        try:
            model = await self._manager.open_beside(path)
        except ServingError:
            raise
        except OfframpError as error:
            log.warning("not loaded: %s", error)
            raise BadBundleError(str(error)) from error
        try:
            # Much may have happened meanwhile.
            self._check_startable(name)
            stable = self._models.get(name)
            problem = _difference(stable, model)
            if problem is not None:
                raise BadBundleError(f"{path.name}: {problem}")
        except ServingError:
            self._manager.retire(model)
            raise
        return self._run(Canary(model, stable, bundle, plan))

    def change(self, name: str, plan: Plan) -> Canary:
        """Go on with the canary of `name` under `plan`; raises NotFoundError."""
        canary = self.get(name)
        canary.follow(plan)
        self._metrics.share(canary.name, canary.version, plan.share)
        log.info("%s: canary %s now takes %g of requests", name, canary.version, plan.share)
        return canary

    async def promote(self, name: str) -> LoadedModel:
        """Serve the canary of `name` to all later requests, in place of the stable version. Raises
        NotFoundError, also if the canary ended meanwhile."""
        canary = self.get(name)

        def end() -> None:
            if self.running.get(name) is not canary:
                raise NotFoundError("The canary has ended meanwhile.")
            self._end(canary, "promoted")

        return await self._manager.publish_beside(canary.model, end)

    def roll_back(self, name: str) -> None:
        """Let the stable version answer all later requests; raises NotFoundError."""
        self._roll_back(self.get(name), "request")

    def answered(
        self,
        trial: Trial,
        images: Images,
        result: BatchResult,
        seconds: float,
        *,
        low_priority: bool,
    ) -> None:
        """A request of `trial` was answered, `seconds` after its arrival. Times of low priority do not
        count."""
        canary, role, policy = trial
        canary.answered(role, result, low_priority=low_priority)
        exits = [found.exit for found in result.predictions if isinstance(found, Prediction)]
        self._metrics.answered(canary.name, role, canary.sides[role].version, exits, seconds)
        if role == "canary":
            self._mirror.answered(canary, policy, images, result.predictions)
            self._judge(canary)

    def failed(self, trial: Trial, error: Exception) -> bool:
        """A request of `trial` failed; returns whether the stable version should answer it instead."""
        if not is_fault(error):
            return False
        canary, role, _ = trial
        canary.failed(role)
        code = error.code if isinstance(error, ServingError) else ServingError.code
        self._metrics.failed(canary.name, role, canary.sides[role].version, code)
        if role == "stable":
            return False
        self._judge(canary)
        return True

    def _check_startable(self, name: str) -> None:
        self._models.get(name)
        if name in self.running:
            raise CanaryConflictError("This model has a canary already; roll it back first.")
        if self._latency_target:
            raise CanaryConflictError("A server with a latency target runs no canaries.")

    def _find(self, bundle: str) -> Path:
        if self._given is not None and bundle == self._given.name:
            return self._given
        return self._repository.subdirectory(bundle)

    def _run(self, canary: Canary) -> Canary:
        self.running = {**self.running, canary.name: canary}
        self._metrics.started(canary.name)
        self._metrics.share(canary.name, canary.version, canary.plan.share)
        log.info(
            "%s: canary %s from %s takes %g of requests",
            canary.name,
            canary.version,
            canary.model.path,
            canary.plan.share,
        )
        return canary

    def _judge(self, canary: Canary) -> None:
        """Roll `canary` back if it exceeds a bound."""
        reason = canary.verdict()
        if reason is not None and self.running.get(canary.name) is canary:
            self._roll_back(canary, reason)

    def _roll_back(self, canary: Canary, outcome: Outcome) -> None:
        self._end(canary, outcome)
        # Its requests in flight are answered.
        self._manager.retire(canary.model)

    def _end(self, canary: Canary, outcome: Outcome) -> None:
        self.running = {name: other for name, other in self.running.items() if other is not canary}
        ended = self._ended.setdefault(canary.name, deque(maxlen=MAX_ENDED))
        ended.append(EndedReport(datetime.now(UTC), outcome, SENTENCES[outcome], report(canary)))
        self._metrics.ended(canary.name, canary.version, outcome)
        log.log(
            logging.INFO if outcome in ("promoted", "request") else logging.WARNING,
            "%s: canary %s ended. %s (requests %d, failed %d)",
            canary.name,
            canary.version,
            SENTENCES[outcome],
            canary.sides["canary"].requests,
            canary.sides["canary"].errors,
        )

    def _stable_removed(self, model: LoadedModel) -> None:
        canary = self.running.get(model.name)
        if canary is not None and canary.model is not model:
            self._roll_back(canary, "replaced")


def _difference(stable: LoadedModel, model: LoadedModel) -> str | None:
    """Why `model` cannot take the place of `stable`; None if it can."""
    ours, theirs = stable.engine.manifest, model.engine.manifest
    if theirs.name != ours.name:
        return f"The bundle is called {theirs.name}, not {ours.name}."
    if theirs.labels != ours.labels:
        return "The bundle has other labels than the model."
    if (theirs.input.height, theirs.input.width) != (ours.input.height, ours.input.width):
        return "The bundle has another input size than the model."
    return None
