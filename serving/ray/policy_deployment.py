"""The deployment that keeps the policies in force."""

from __future__ import annotations

import asyncio
from pathlib import Path

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from serving.errors import ServingError
from serving.models.manager import write
from serving.ray.policy_store import Key, PolicyStore, VersionedPolicy, key_of

# A follower asks again after this long, in seconds, in case an answer got lost.
FOLLOW_TIMEOUT_S = 20.0


class PolicyStoreDeployment:
    """One replica only: what it decides one after the other is what makes If-Match hold everywhere."""

    def __init__(self) -> None:
        self._policy_store = PolicyStore()
        self._lock = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def join(
        self, key: Key, stored: Policy, declared: Policy | None, known: VersionedPolicy | None
    ) -> VersionedPolicy:
        """See Board.join."""
        async with self._lock:
            before = self._policy_store.get(key)
            versioned = self._policy_store.join(key, stored, declared, known)
            if before != versioned:
                await self._notify()
            return versioned

    async def put(
        self, manifest: Manifest, policy: Policy, if_match: str | None, into: Path | None
    ) -> VersionedPolicy | ServingError:
        """Put `policy` in force, and before that write it into the bundle `into`, if one is given.

        Gives RevisionConflictError or NotPersistedError, and has changed nothing then. Raising them
        would log what is no fault.
        """
        key = key_of(manifest)
        async with self._lock:
            try:
                self._policy_store.check(key, if_match)
                if into is not None:
                    await asyncio.to_thread(write, into, manifest, policy)
            except ServingError as error:
                return error
            versioned = self._policy_store.put(key, policy)
            await self._notify()
            return versioned

    async def follow(self, known: dict[Key, int]) -> dict[Key, VersionedPolicy] | None:
        """What differs from the revisions `known`, as soon as something does; nothing after FOLLOW_TIMEOUT_S,
        None if the caller has to join again."""
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
