"""Changing what is served while it is served: load, swap, unload, and policies."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from exports.bundle.errors import BundleError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import read_manifest, read_policy
from exports.bundle.writing import write_policy
from offramp.errors import OfframpError, WriteError
from serving.errors import (
    BadBundleError,
    InvalidRequestError,
    NotFoundError,
    NotPersistedError,
    RevisionConflictError,
)
from serving.inference.engine import Engine
from serving.memory import release_memory
from serving.models.registry import LoadedModel, ModelRegistry, OpenSessions, open_engine
from serving.models.repository import Repository
from serving.scheduling.dispatcher import Dispatcher
from serving.settings import Settings
from serving.telemetry.metrics import Metrics

log = logging.getLogger("offramp.models")


class ModelManager:
    """One change at a time; each is either whole or has changed nothing.

    A bundle is verified and warmed in a thread beside what is served. Then one assignment moves the
    traffic: requests that have begun keep the model they began with, later ones get the new one.
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
        self.sessions: OpenSessions | None = None
        self._lock = asyncio.Lock()
        # One thread: what a load leaves of its allocator's pool is there for the next one.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offramp-load")
        self._leaving: set[asyncio.Task[None]] = set()

    def load_first(self, path: Path) -> None:
        """Load the bundle in `path` before there is traffic, in the caller's thread.

        Raises what `open_engine` raises, and BundleError if another bundle has its name.
        """
        model = self._open(path)
        if model.name in self._models:
            raise BundleError(f"{path}: another bundle is called {model.name} already.")
        self._place(self._ready(model))

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
        """Load the bundle in `path`, whatever its name; raises what is wrong with it."""
        async with self._lock:
            return await self._load(path, None)

    async def unload(self, name: str, only: Path | None = None) -> None:
        """Serve `name` no longer, if it comes from `only`; raises NotFoundError."""
        async with self._lock:
            if name not in self._models:
                raise NotFoundError("There is no model of this name; /v1/models lists them.")
            model = self._models.get(name)
            if only is not None and model.path != only:
                return
            self._remove(model)

    async def set_policy(
        self, name: str, policy: Policy, *, if_match: str | None = None, persist: bool = False
    ) -> LoadedModel:
        """Put `policy` in force for requests to come; with `persist` it is written first.

        Raises RevisionConflictError if `if_match`, as the HTTP header, names another revision,
        InvalidRequestError if the policy does not fit, NotPersistedError if it cannot be written; the
        one in force stays then.
        """
        async with self._lock:
            model = self._models.get(name)
            check_revision(if_match, model.revision)
            await check_policy(policy, model)
            stored = model.stored
            if persist:
                await asyncio.to_thread(write, model.path, model.engine.manifest, policy)
                stored = policy
            return self._place(replace(model, policy=policy, stored=stored))

    async def reread_policy(self, model: LoadedModel) -> None:
        """Put the policy in the bundle of `model` in force, unless it was known; raises BundleError."""
        async with self._lock:
            now = self._models.get(model.name)
            if now.engine is not model.engine:
                return
            stored = await asyncio.to_thread(read_policy, now.path, now.engine.manifest)
            if now.stored != stored:
                check_fits(stored, now)
                self._place(replace(now, policy=stored, stored=stored))

    def _open(self, path: Path) -> LoadedModel:
        return open_engine(
            path,
            threads=self._settings.threads,
            provider=self._settings.provider,
            pool=self._settings.pool,
            metrics=self._metrics,
            sessions=self.sessions,
        )

    def _ready(self, model: LoadedModel) -> LoadedModel:
        """Have the scheduler expect samples for `model`, and keep it until it is retired."""
        costs = self._dispatcher.open(model.engine)
        stages = range(1, len(model.engine.manifest.exits) + 1)
        exit_ms = accumulate(1000 * costs.seconds(stage, 1) for stage in stages)
        return replace(model, calibration=model.calibration.timed(list(exit_ms)))

    async def _load(self, path: Path, name: str | None) -> LoadedModel:
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._thread, self._open, path)
        if name is not None and model.name != name:
            raise BundleError(f"{path} is called {model.name} by now, not {name}.")
        model = await loop.run_in_executor(self._thread, self._ready, model)
        old = self._models.get(model.name) if model.name in self._models else None
        placed = self._place(model)
        self._repository.forget(path)
        if old is not None:
            self._retire(old.engine)
        for other in list(self._models):
            # What lay there before is gone.
            if other.path == placed.path and other.name != placed.name:
                self._remove(other)
        log.info("loaded: %s %s from %s", model.name, model.engine.manifest.version, path)
        return placed

    def _remove(self, model: LoadedModel) -> None:
        self._models.remove(model.name)
        self._metrics.unloaded(model.engine.manifest, model.engine.provider)
        self._retire(model.engine)
        log.info("unloaded: %s %s", model.name, model.engine.manifest.version)

    def _place(self, model: LoadedModel, revision: int | None = None) -> LoadedModel:
        if model.name in self._models:
            old = self._models.get(model.name)
            self._metrics.unloaded(old.engine.manifest, old.engine.provider)
        placed = self._models.put(model, revision)
        self._metrics.loaded(model.engine.manifest, model.engine.provider)
        self._metrics.policy(placed.name, placed.policy, placed.revision)
        return placed

    def _retire(self, engine: Engine) -> None:
        task = asyncio.create_task(self._drain(engine))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _drain(self, engine: Engine) -> None:
        """Let `engine` finish what it has begun, and give its memory back."""
        await self._dispatcher.retire(engine)
        del engine
        await asyncio.get_running_loop().run_in_executor(self._thread, release_memory)


def check_revision(if_match: str | None, revision: int) -> None:
    """Raises RevisionConflictError unless `if_match` is None, `*` or lists the ETag of `revision`."""
    if if_match is None:
        return
    wanted = {part.strip() for part in if_match.split(",")}
    if not wanted & {"*", f'"{revision}"'}:
        raise RevisionConflictError(
            f'The policy is at revision {revision} by now; read it again, then send If-Match: "{revision}".'
        )


def check_fits(policy: Policy, model: LoadedModel) -> None:
    """Raises InvalidRequestError if `policy` is for another number of exits than `model` has."""
    exits = len(model.engine.manifest.exits)
    if policy.exits != exits:
        raise InvalidRequestError(
            f"The policy is for {policy.exits} exits, but {model.name} has {exits}: "
            f"it needs {exits - 1} thresholds."
        )


async def check_policy(policy: Policy, model: LoadedModel) -> None:
    """Raises InvalidRequestError if `policy` does not fit `model`, or its certificate does not hold,
    BadBundleError if that cannot be told since the bundle has changed."""
    check_fits(policy, model)
    if policy.certificate is None:
        return
    try:
        refuted = await asyncio.to_thread(model.calibration.contradicts_certificate, policy)
    except BundleError as error:
        raise BadBundleError(str(error)) from error
    if refuted:
        raise InvalidRequestError(
            "The certificate does not follow from the bundle's calibration table; "
            "send the policy without it."
        )


def write(path: Path, manifest: Manifest, policy: Policy) -> None:
    """Write `policy` into the bundle in `path`; raises NotPersistedError if it cannot be written, or the
    bundle is not the one with `manifest` any more."""
    try:
        if read_manifest(path) != manifest:
            raise NotPersistedError(
                f"The bundle in {path} is not the one that is loaded; load it first."
            )
        write_policy(path, policy)
    except (BundleError, WriteError) as error:
        raise NotPersistedError(f"The policy is not changed: {error}") from error
