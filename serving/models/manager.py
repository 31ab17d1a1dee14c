"""Loading, swapping and unloading models, and changing their policies, while requests are served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from exports.bundle.errors import BundleError
from exports.bundle.policy import Policy
from offramp.errors import OfframpError
from serving.errors import (
    BadBundleError,
    BelowFloorError,
    NotFoundError,
)
from serving.inference.engine import Engine
from serving.memory import release_memory
from serving.models.checks import check_revision, persist_policy
from serving.models.gears import AccuracyFloorError
from serving.models.policies import PolicyApplier
from serving.models.registry import LoadedModel, ModelRegistry, OpenSessions, open_engine
from serving.models.repository import Repository
from serving.scheduling.dispatcher import Dispatcher
from serving.settings import Settings
from serving.telemetry.metrics import Metrics

log = logging.getLogger("offramp.models")

ManagerFactory = Callable[
    [Settings, ModelRegistry, Repository, Dispatcher, Metrics], "ModelManager"
]


class ModelManager:
    """Makes one change at a time, either completely or not at all.

    A bundle is verified and warmed up in a thread while others are served. Then one assignment switches
    the traffic: requests that have started keep their model, later ones get the new one.
    """

    def __init__(
        self,
        settings: Settings,
        models: ModelRegistry,
        repository: Repository,
        dispatcher: Dispatcher,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._models = models
        self._repository = repository
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._open_sessions: OpenSessions | None = None
        self._policies = PolicyApplier(settings.accuracy_floor)
        self._lock = asyncio.Lock()
        # One thread, so that the next load reuses the memory in the allocator's pool of that thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offramp-load")
        self._retiring: set[asyncio.Task[None]] = set()
        # Called with a model that is no longer served.
        self.on_removed: Callable[[LoadedModel], None] = _ignore

    def load_first(self, path: Path) -> None:
        """Load the bundle in `path` in the caller's thread, before the first request.

        Raises what `open_engine` raises, and BundleError if another bundle has the same name.
        """
        model = self._open(path)
        if model.name in self._models:
            raise BundleError(f"{path}: another bundle is called {model.name} already.")
        self._publish(self._schedule(model))

    async def load(self, name: str) -> LoadedModel:
        """Load the bundle called `name`; raises NotFoundError or BadBundleError."""
        async with self._lock:
            try:
                path = await asyncio.to_thread(self._repository.find, name)
                return await self._load(path, name)
            except NotFoundError:
                raise
            except OfframpError as error:
                log.warning("not loaded: %s", error)
                raise BadBundleError(str(error)) from error

    async def load_path(self, path: Path) -> LoadedModel:
        """Load the bundle in `path`, whatever its name; raises what `open_engine` raises."""
        async with self._lock:
            return await self._load(path, None)

    def open_first_beside(self, path: Path) -> LoadedModel:
        """`open_beside` in the caller's thread, before the first request."""
        return self._schedule(self._open(path))

    async def open_beside(self, path: Path) -> LoadedModel:
        """Load the bundle in `path` without serving it under its name: requests may use its engine until
        `publish_beside` or `retire`. Raises what `open_engine` raises."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            model = await loop.run_in_executor(self._thread, self._open, path)
            return await loop.run_in_executor(self._thread, self._schedule, model)

    async def publish_beside(self, model: LoadedModel, check: Callable[[], None]) -> LoadedModel:
        """Serve `model` of `open_beside` in place of the one of its name. `check` is called before, while no
        other change is under way; if it raises, nothing changes."""
        async with self._lock:
            check()
            return self._replace(model)

    async def unload(self, name: str, only: Path | None = None) -> None:
        """Stop serving `name`; with `only`, if its bundle was in that path, which is gone. Raises
        NotFoundError."""
        async with self._lock:
            if name not in self._models:
                raise NotFoundError("There is no model of this name; /v1/models lists them.")
            model = self._models.get(name)
            if only is None:
                # Whoever follows the repository must not load it again.
                self._repository.unloaded(await asyncio.to_thread(self._repository.called, name))
            elif model.path != only:
                return
            self._remove(model)

    async def set_policy(
        self, name: str, policy: Policy, *, if_match: str | None = None, persist: bool = False
    ) -> LoadedModel:
        """Apply `policy` to later requests; with `persist` it is written to the bundle first.

        Raises RevisionConflictError if `if_match`, as in the HTTP header, names another revision,
        InvalidRequestError if the policy does not fit, BelowFloorError if it is below the accuracy floor,
        NotPersistedError if it cannot be written. In these cases the current policy stays in force.
        """
        async with self._lock:
            model = self._models.get(name)
            check_revision(if_match, model.revision)
            verified = await self._policies.check(policy, model)
            try:
                model = await self._policies.applied(model, policy, verified)
            except AccuracyFloorError as error:
                raise BelowFloorError(str(error)) from error
            stored = model.stored
            if persist:
                await asyncio.to_thread(persist_policy, model.path, model.engine.manifest, policy)
                stored = policy
            return self._publish(replace(model, stored=stored))

    async def raise_thresholds(
        self, model: LoadedModel, least: Mapping[int, float]
    ) -> LoadedModel | None:
        """Raise the thresholds of the policy in force to at least `least`, by exit, for later requests.

        No threshold is lowered, and nothing is written. None if `model` is no longer what is served. Raises
        BundleError if the bundle's table is damaged.
        """
        async with self._lock:
            if model.name not in self._models:
                return None
            current = self._models.get(model.name)
            if current.engine is not model.engine or current.revision != model.revision:
                return None
            return self._publish(await self._policies.raised(current, least))

    async def reread_policy(self, model: LoadedModel) -> None:
        """Apply the policy and the gears in the bundle of `model` if they have changed there; raises
        BundleError."""
        async with self._lock:
            current = self._models.get(model.name)
            if current.engine is not model.engine:
                return
            changed = await self._policies.reread(current)
            if changed is not current:
                current = self._publish(changed)
            changed = await self._policies.reread_gears(current)
            if changed is not current:
                self._models.put(changed, current.revision)

    def _open(self, path: Path) -> LoadedModel:
        model = open_engine(
            path,
            threads=self._settings.threads,
            provider=self._settings.provider,
            pool=self._settings.pool,
            metrics=self._metrics,
            sessions=self._open_sessions,
            keep_logits=self._settings.record is not None,
        )
        return self._policies.of_bundle(model)

    def _schedule(self, model: LoadedModel) -> LoadedModel:
        """Have the dispatcher accept images for `model`, until it is retired."""
        costs = self._dispatcher.open(model.engine)
        stages = range(1, len(model.engine.manifest.exits) + 1)
        exit_ms = accumulate(1000 * costs.seconds(stage, 1) for stage in stages)
        exit_seconds = accumulate(costs.seconds_per_image(stage) for stage in stages)
        timed = model.calibration.timed(list(exit_ms))
        return replace(model, calibration=timed, exit_seconds=tuple(exit_seconds))

    async def _load(self, path: Path, name: str | None) -> LoadedModel:
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._thread, self._open, path)
        if name is not None and model.name != name:
            raise BundleError(f"{path} is now called {model.name}, not {name}.")
        return self._replace(await loop.run_in_executor(self._thread, self._schedule, model))

    def _replace(self, model: LoadedModel) -> LoadedModel:
        """Serve `model`, which is scheduled, in place of the one of its name, and of one from its path."""
        old = self._models.get(model.name) if model.name in self._models else None
        unsaved = None if old is None else old.raised_from or old.policy
        if old is not None and unsaved != old.stored:
            log.warning(
                "%s: the policy of revision %d was not saved; the new bundle's is in force",
                model.name,
                old.revision,
            )
            model = replace(model, unsaved_policy=unsaved)
        published = self._publish(model)
        self._repository.forget(model.path)
        if old is not None:
            self.on_removed(old)
            self.retire(old)
        for other in list(self._models):
            # The bundle that was in this path before is gone.
            if other.path == published.path and other.name != published.name:
                self._remove(other)
        log.info("loaded: %s %s from %s", model.name, model.engine.manifest.version, model.path)
        return published

    def _remove(self, model: LoadedModel) -> None:
        self._models.remove(model.name)
        self._metrics.unloaded(model.engine.manifest, model.engine.provider)
        self.on_removed(model)
        self.retire(model)
        log.info("unloaded: %s %s", model.name, model.engine.manifest.version)

    def _publish(self, model: LoadedModel, revision: int | None = None) -> LoadedModel:
        """Serve `model`, or its new policy, to later requests."""
        if model.name in self._models:
            old = self._models.get(model.name)
            self._metrics.unloaded(old.engine.manifest, old.engine.provider)
        published = self._models.put(model, revision)
        self._metrics.loaded(model.engine.manifest, model.engine.provider)
        self._metrics.policy(
            published.name, published.policy, published.revision, published.certificate_verified
        )
        return published

    def retire(self, model: LoadedModel) -> None:
        """Free `model`, which is not served any more, once its last image is answered."""
        task = asyncio.create_task(self._free_when_unused(model.engine))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _free_when_unused(self, engine: Engine) -> None:
        """Wait for the last images of `engine`, then return its memory to the system."""
        await self._dispatcher.retire(engine)
        del engine
        await asyncio.get_running_loop().run_in_executor(self._thread, release_memory)


def _ignore(_: LoadedModel) -> None:
    pass
