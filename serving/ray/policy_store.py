"""The policies in force across replicas, in one place. No Ray here: policy_deployment.py serves it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from serving.models.manager import check_revision


class Key(NamedTuple):
    """A model's name and which bundle of that name: while one is rolled out, replicas have either."""

    name: str
    bundle: str


def key_of(manifest: Manifest) -> Key:
    """The key of the bundle with `manifest`, which holds the hashes of all that it runs."""
    content = manifest.model_dump_json().encode()
    return Key(manifest.name, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class VersionedPolicy:
    """The policy in force and its revision, which counts over all bundles of its name."""

    revision: int
    policy: Policy


@dataclass
class _Entry:
    versioned: VersionedPolicy
    declared: Policy | None


class PolicyStore:
    """Policies by key. The highest revision that any replica has seen survives a restart of it."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._revisions: dict[str, int] = {}

    def get(self, key: Key) -> VersionedPolicy | None:
        """What is in force, None if no replica has joined with this bundle."""
        entry = self._entries.get(key)
        return None if entry is None else entry.versioned

    def join(
        self,
        key: Key,
        stored: Policy,
        declared: Policy | None,
        known: VersionedPolicy | None = None,
    ) -> VersionedPolicy:
        """What is in force for a replica that serves `key`.

        The first one brings it: what its configuration has `declared`, else what its bundle has
        `stored`. After that a declared policy counts only when it is a new one, so that a replica
        that starts later does not undo a change made meanwhile. `known` is what a replica has in
        force that joins again because the board had lost it.
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
        """Raise RevisionConflictError if `if_match`, as the HTTP header, names another revision."""
        check_revision(if_match, self._entries[key].versioned.revision)

    def put(self, key: Key, policy: Policy) -> VersionedPolicy:
        """Put `policy` in force under the next revision; someone must have joined with `key`."""
        self._entries[key].versioned = versioned = self._next(key, policy)
        return versioned

    def updates(self, known: dict[Key, int]) -> dict[Key, VersionedPolicy] | None:
        """What differs from the revisions `known`; None if the board knows less than that, and is to
        be joined again."""
        found = {}
        for key, revision in known.items():
            versioned = self.get(key)
            if versioned is None or versioned.revision < revision:
                return None
            if versioned.revision > revision:
                found[key] = versioned
        return found

    def _next(self, key: Key, policy: Policy) -> VersionedPolicy:
        revision = self._revisions.get(key.name, 0) + 1
        self._revisions[key.name] = revision
        return VersionedPolicy(revision, policy)
