"""The policies in force on all replicas. Independent of Ray; policy_deployment.py is its deployment."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from serving.models.checks import check_revision


class Key(NamedTuple):
    """A model's name and the key of its bundle: during a rollout, replicas serve the old or the new one."""

    name: str
    bundle: str


def key_of(manifest: Manifest) -> Key:
    """The key of the bundle with `manifest`, which contains the hashes of its files."""
    content = manifest.model_dump_json().encode()
    return Key(manifest.name, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class VersionedPolicy:
    """The policy in force and its revision, which counts across all bundles of its name."""

    revision: int
    policy: Policy


@dataclass
class _Entry:
    versioned: VersionedPolicy
    declared: Policy | None


class PolicyStore:
    """Policies by key. After a restart it recovers the highest revision that any replica has."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._revisions: dict[str, int] = {}

    def get(self, key: Key) -> VersionedPolicy | None:
        """The policy in force, None if no replica has joined with this bundle."""
        entry = self._entries.get(key)
        return None if entry is None else entry.versioned

    def join(
        self,
        key: Key,
        stored: Policy,
        declared: Policy | None,
        known: VersionedPolicy | None = None,
    ) -> VersionedPolicy:
        """The policy in force for a replica that serves `key`.

        The first replica sets it: to the policy `declared` in its configuration, else to the one `stored`
        in its bundle. Later, a declared policy applies only if it has changed, so that a replica that
        starts later does not undo a change made meanwhile. `known` is the policy in force on a replica
        that joins again because the policy store has lost its state.
        """
        entry = self._entries.get(key)
        if known is not None and (entry is None or known.revision > entry.versioned.revision):
            self._revisions[key.name] = max(self._revisions.get(key.name, 0), known.revision)
            entry = self._entries[key] = _Entry(known, entry.declared if entry else declared)
        elif entry is None:
            entry = self._entries[key] = _Entry(self._next(key, declared or stored), declared)
        elif known is None and declared is not None and declared != entry.declared:
            entry.versioned, entry.declared = self._next(key, declared), declared
        return entry.versioned

    def check(self, key: Key, if_match: str | None) -> None:
        """Raise RevisionConflictError if `if_match`, as in the HTTP header, names another revision."""
        check_revision(if_match, self._entries[key].versioned.revision)

    def put(self, key: Key, policy: Policy) -> VersionedPolicy:
        """Put `policy` in force under the next revision; a replica must have joined with `key`."""
        self._entries[key].versioned = versioned = self._next(key, policy)
        return versioned

    def updates(self, known: dict[Key, int]) -> dict[Key, VersionedPolicy] | None:
        """The policies that are newer than their revision in `known`; None if one is missing or older here,
        so that replicas must join again."""
        newer = {}
        for key, revision in known.items():
            versioned = self.get(key)
            if versioned is None or versioned.revision < revision:
                return None
            if versioned.revision > revision:
                newer[key] = versioned
        return newer

    def _next(self, key: Key, policy: Policy) -> VersionedPolicy:
        revision = self._revisions.get(key.name, 0) + 1
        self._revisions[key.name] = revision
        return VersionedPolicy(revision, policy)
