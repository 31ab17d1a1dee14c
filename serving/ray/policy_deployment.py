"""The deployment of the policy store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from serving.errors import ServingError
from serving.models.checks import persist_policy
from serving.ray.policy_store import Key, PolicyStore, VersionedPolicy, key_of

# `follow` returns after this time even without a change, in case an answer is lost.
FOLLOW_TIMEOUT_S = 20.0


class PolicyStoreDeployment:
    """Runs as a single replica: one order of changes makes If-Match hold on all replicas of the ingress."""

    def __init__(self) -> None:
        self._policy_store = PolicyStore()
        self._lock = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def join(
        self, key: Key, stored: Policy, declared: Policy | None, known: VersionedPolicy | None
    ) -> VersionedPolicy:
        """See PolicyStore.join."""
        async with self._lock:
            before = self._policy_store.get(key)
            versioned = self._policy_store.join(key, stored, declared, known)
            if before != versioned:
                await self._notify()
            return versioned

    async def put(
        self, manifest: Manifest, policy: Policy, if_match: str | None, into: Path | None
    ) -> VersionedPolicy | ServingError:
        """Put `policy` in force; with `into`, write it into that bundle first.

        Returns RevisionConflictError or NotPersistedError if nothing was changed: Ray would log a raised
        error as a fault.
        """
        key = key_of(manifest)
        async with self._lock:
            try:
                self._policy_store.check(key, if_match)
                if into is not None:
                    await asyncio.to_thread(persist_policy, into, manifest, policy)
            except ServingError as error:
                return error
            versioned = self._policy_store.put(key, policy)
            await self._notify()
            return versioned

    async def follow(self, known: dict[Key, int]) -> dict[Key, VersionedPolicy] | None:
        """Wait until a policy is newer than its revision in `known`, and return the newer ones. Returns
        nothing after FOLLOW_TIMEOUT_S, and None if the caller must join again."""
        async with self._changed:
            try:
                async with asyncio.timeout(FOLLOW_TIMEOUT_S):
                    await self._changed.wait_for(lambda: self._policy_store.updates(known) != {})
            except TimeoutError:
                return {}
            return self._policy_store.updates(known)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
