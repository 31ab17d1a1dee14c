"""Changes that hold for every replica of the application."""

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
from serving.models.manager import ModelManager, check_policy
from serving.models.registry import LoadedModel
from serving.ray.arguments import ModelConfig
from serving.ray.errors import ManagedByConfigError, PolicyStoreUnavailableError
from serving.ray.policy_deployment import FOLLOW_TIMEOUT_S
from serving.ray.policy_store import VersionedPolicy, key_of
from serving.ray.remote import remote_sessions

log = logging.getLogger("offramp.models")
# Before the board is asked again after it could not be, in seconds.
RETRY_PAUSE_S = 1.0
# Longest that it may take to answer, in seconds: no call may be lost for ever.
POLICY_STORE_TIMEOUT_S = FOLLOW_TIMEOUT_S + 10.0


class SharedModelManager(ModelManager):
    """Changes of one replica, agreed on with all others through the board of policies.

    Bundles come from the application's configuration alone. A policy is in force here once the board
    has it, and on the other replicas as soon as their open question to the board is answered: after
    the time of one call in the cluster, or RETRY_PAUSE_S more if the board is just being restarted.
    """

    def __init__(self, *state: Any, policy_store: Any, stages: Sequence[Any]) -> None:
        """`state` is what Changes takes, `policy_store` the handle of Policies, `stages` those of the stages,
        none if they run here."""
        super().__init__(*state)
        self._sources: dict[Path, str] = {}
        if stages:
            self.sessions = lambda bundle: remote_sessions(
                bundle, self._sources[bundle.path], stages
            )
        self._policy_store = policy_store
        self._declared: dict[str, Policy] = {}
        self._following: asyncio.Task[None] | None = None

    @property
    def following(self) -> bool:
        """Whether changes made through other replicas arrive."""
        return self._following is not None and not self._following.done()

    async def configure(self, config: ModelConfig) -> None:
        """Serve what `config` says and nothing else; what is served already stays as it is.

        Raises BundleError, or SettingsError for a policy that fits no bundle; what was loaded until
        then is served.
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
            await self._follow_anew()

    async def stop(self) -> None:
        """Follow the board no longer."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def load(self, name: str) -> LoadedModel:
        """Raises ManagedByConfigError."""
        raise ManagedByConfigError

    async def unload(self, name: str, only: Path | None = None) -> None:
        """Raises ManagedByConfigError."""
        raise ManagedByConfigError

    async def set_policy(
        self, name: str, policy: Policy, *, if_match: str | None = None, persist: bool = False
    ) -> LoadedModel:
        """See ModelManager.set_policy; raises PolicyStoreUnavailableError, too. A persisted policy is
        written on the machine of the policy store."""
        async with self._lock:
            model = self._models.get(name)
            await check_policy(policy, model)
            versioned: VersionedPolicy | ServingError = await _asked(
                self._policy_store.put.remote(
                    model.engine.manifest, policy, if_match, model.path if persist else None
                )
            )
            if isinstance(versioned, ServingError):
                raise versioned
            stored = policy if persist else model.stored
            return self._place(
                replace(model, policy=versioned.policy, stored=stored), versioned.revision
            )

    async def _serve(self, source: str, config: ModelConfig, served: set[str]) -> str:
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
            await check_policy(declared, model)
        versioned = await self._join(model, declared, None)
        if old is None or old.engine is not model.engine:
            model = await loop.run_in_executor(self._thread, self._ready, model)
        self._place(replace(model, policy=versioned.policy), versioned.revision)
        if old is not None and old.engine is not model.engine:
            self._retire(old.engine)
        return name

    async def _join(
        self, model: LoadedModel, declared: Policy | None, known: VersionedPolicy | None
    ) -> VersionedPolicy:
        key = key_of(model.engine.manifest)
        versioned: VersionedPolicy = await _asked(
            self._policy_store.join.remote(key, model.stored, declared, known)
        )
        return versioned

    async def _follow_anew(self) -> None:
        await self.stop()
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Adopt what the board has that is newer, for ever."""
        keys = {key_of(model.engine.manifest): model.name for model in self._models}
        while True:
            known = {key: self._models.get(name).revision for key, name in keys.items()}
            try:
                updates = await _asked(self._policy_store.follow.remote(known))
                async with self._lock:
                    await self._adopt(updates, keys)
            except PolicyStoreUnavailableError as error:
                log.warning("the board of policies cannot be asked: %r", error.__cause__)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _adopt(
        self, updates: dict[Any, VersionedPolicy] | None, keys: dict[Any, str]
    ) -> None:
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
                self._place(replace(model, policy=versioned.policy), versioned.revision)
                log.info("policy of %s: revision %d", name, versioned.revision)


async def _asked(response: Awaitable[Any]) -> Any:
    """The policy store's answer. Raises PolicyStoreUnavailableError if it is gone or does not answer
    within POLICY_STORE_TIMEOUT_S."""
    try:
        async with asyncio.timeout(POLICY_STORE_TIMEOUT_S):
            return await response
    except (RayError, RayServeException, TimeoutError) as error:
        raise PolicyStoreUnavailableError from error
