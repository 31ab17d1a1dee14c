"""Models and policies that are the same on every replica of the application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from exports.bundle.errors import BundleError
from exports.bundle.policy import Policy
from exports.bundle.reader import read_manifest
from exports.bundle.resolve import resolve_bundle
from serving.errors import ServingError, SettingsError
from serving.models.manager import ModelManager
from serving.models.registry import LoadedModel
from serving.ray.arguments import ModelConfig
from serving.ray.errors import ManagedByConfigError, PolicyStoreUnavailableError
from serving.ray.policy_deployment import FOLLOW_TIMEOUT_S
from serving.ray.policy_store import Key, VersionedPolicy, key_of
from serving.ray.remote import remote_sessions

log = logging.getLogger("offramp.models")
# Pause before the policy store is called again after it was unavailable.
RETRY_PAUSE_S = 1.0
# Limit of one call of the policy store.
POLICY_STORE_TIMEOUT_S = FOLLOW_TIMEOUT_S + 10.0


class SharedModelManager(ModelManager):
    """The models of one replica, with policies that all replicas share through the policy store.

    Models come from the application's configuration only. A policy is in force here once the policy
    store has it, and on the other replicas as soon as their pending `follow` call returns: after the time
    of one call in the cluster, or RETRY_PAUSE_S later if the policy store is being restarted.
    """

    def __init__(self, *arguments: Any, policy_store: Any, stages: Sequence[Any]) -> None:
        """`arguments` are those of ModelManager. `policy_store` is the handle of PolicyStoreDeployment,
        `stages` are those of the stages, empty if they run in this process."""
        super().__init__(*arguments)
        self._sources: dict[Path, str] = {}
        if stages:
            self._open_sessions = lambda bundle: remote_sessions(
                bundle, self._sources[bundle.path], stages
            )
        self._policy_store = policy_store
        self._declared: dict[str, Policy] = {}
        self._follow_task: asyncio.Task[None] | None = None

    @property
    def following(self) -> bool:
        """Whether this replica receives policy changes made through others."""
        return self._follow_task is not None and not self._follow_task.done()

    async def configure(self, config: ModelConfig) -> None:
        """Serve the models of `config` and no others. Those already served are kept as they are.

        Raises BundleError, or SettingsError for a policy whose model is not configured. Models that were
        loaded before the error are served.
        """
        async with self._lock:
            served: set[str] = set()
            for source in config.bundles:
                served.add(await self._serve(source, config, served))
            for name in {model.name for model in self._models} - served:
                self._remove(self._models.get(name))
            unknown = config.policies.keys() - served
            if unknown:
                raise SettingsError(f"There is a policy for {min(unknown)}, but no such bundle.")
            self._declared = dict(config.policies)
            await self._restart_following()

    async def stop(self) -> None:
        """Stop following the policy store."""
        if self._follow_task is not None:
            self._follow_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follow_task

    async def load(self, name: str) -> LoadedModel:
        """Raises ManagedByConfigError."""
        raise ManagedByConfigError

    def open_first_beside(self, path: Path) -> LoadedModel:
        """Raises ManagedByConfigError."""
        raise ManagedByConfigError

    async def open_beside(self, path: Path) -> LoadedModel:
        """Raises ManagedByConfigError."""
        raise ManagedByConfigError

    async def unload(self, name: str, only: Path | None = None) -> None:
        """Raises ManagedByConfigError."""
        raise ManagedByConfigError

    async def set_policy(
        self, name: str, policy: Policy, *, if_match: str | None = None, persist: bool = False
    ) -> LoadedModel:
        """See ModelManager.set_policy; also raises PolicyStoreUnavailableError. With `persist` the policy is
        written on the machine of the policy store."""
        async with self._lock:
            model = self._models.get(name)
            verified = await self._policies.check(policy, model)
            versioned: VersionedPolicy | ServingError = await _call(
                self._policy_store.put.remote(
                    model.engine.manifest, policy, if_match, model.path if persist else None
                )
            )
            if isinstance(versioned, ServingError):
                raise versioned
            stored = policy if persist else model.stored
            put = replace(
                model, policy=versioned.policy, stored=stored, certificate_verified=verified
            )
            return self._publish(put, versioned.revision)

    async def _serve(self, source: str, config: ModelConfig, served: set[str]) -> str:
        """Serve the bundle `source`; returns its name. Raises BundleError if it is one of `served`."""
        path = (await asyncio.to_thread(resolve_bundle, source)).absolute()
        self._sources[path] = source
        manifest = await asyncio.to_thread(read_manifest, path)
        name = manifest.name
        if name in served:
            raise BundleError(f"{path}: another bundle is called {name} already.")
        loop = asyncio.get_running_loop()
        old = self._models.get(name) if name in self._models else None
        if old is not None and old.engine.manifest == manifest:
            model = replace(old, path=path)
        else:
            model = await loop.run_in_executor(self._thread, self._open, path)
            log.info("loaded: %s %s from %s", name, manifest.version, path)
        declared = config.policies.get(name)
        if declared is not None:
            await self._policies.check(declared, model)
        versioned = await self._join(model, declared, None)
        if old is None or old.engine is not model.engine:
            model = await loop.run_in_executor(self._thread, self._schedule, model)
        self._publish(await self._adopt(versioned, model), versioned.revision)
        if old is not None and old.engine is not model.engine:
            self.retire(old)
        return name

    async def _join(
        self, model: LoadedModel, declared: Policy | None, known: VersionedPolicy | None
    ) -> VersionedPolicy:
        """See PolicyStore.join."""
        key = key_of(model.engine.manifest)
        versioned: VersionedPolicy = await _call(
            self._policy_store.join.remote(key, model.stored, declared, known)
        )
        return versioned

    async def _adopt(self, versioned: VersionedPolicy, model: LoadedModel) -> LoadedModel:
        """`model` with a policy that another replica may have checked and put in force."""
        try:
            verified = await self._policies.verify(versioned.policy, model)
        except BundleError as error:
            log.warning("the certificate of %s is not verified: %s", model.name, error)
            verified = False
        return replace(model, policy=versioned.policy, certificate_verified=verified)

    async def _restart_following(self) -> None:
        await self.stop()
        self._follow_task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Apply newer policies of the policy store until cancelled."""
        keys = {key_of(model.engine.manifest): model.name for model in self._models}
        while True:
            revisions = {key: self._models.get(name).revision for key, name in keys.items()}
            try:
                updates = await _call(self._policy_store.follow.remote(revisions))
                async with self._lock:
                    await self._apply(updates, keys)
            except PolicyStoreUnavailableError as error:
                log.warning("the policy store is unavailable: %r", error.__cause__)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _apply(
        self, updates: dict[Key, VersionedPolicy] | None, keys: dict[Key, str]
    ) -> None:
        """Apply `updates`; None if the policy store has lost its state, so that all models join again."""
        for key, name in keys.items():
            if name not in self._models:
                continue
            model = self._models.get(name)
            if updates is None:
                known = VersionedPolicy(model.revision, model.policy)
                versioned: VersionedPolicy | None = await self._join(
                    model, self._declared.get(name), known
                )
            else:
                versioned = updates.get(key)
            if versioned is not None and versioned.revision > model.revision:
                self._publish(await self._adopt(versioned, model), versioned.revision)
                log.info("policy of %s: revision %d", name, versioned.revision)


async def _call(response: Awaitable[Any]) -> Any:
    """The result of a call of the policy store. Raises PolicyStoreUnavailableError if it has ended or does
    not answer within POLICY_STORE_TIMEOUT_S."""
    try:
        async with asyncio.timeout(POLICY_STORE_TIMEOUT_S):
            return await response
    except (RayError, RayServeException, TimeoutError) as error:
        raise PolicyStoreUnavailableError from error
