"""Checks of a change to a policy, and writing it into the bundle."""

from __future__ import annotations

from pathlib import Path

from exports.bundle.errors import BundleError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import read_manifest
from exports.bundle.writing import write_policy
from offramp.errors import WriteError
from serving.errors import InvalidRequestError, NotPersistedError, RevisionConflictError
from serving.models.registry import LoadedModel


def check_revision(if_match: str | None, revision: int) -> None:
    """Raise RevisionConflictError unless `if_match` is None, `*` or lists the ETag of `revision`."""
    if if_match is None:
        return
    etags = {part.strip() for part in if_match.split(",")}
    if not etags & {"*", f'"{revision}"'}:
        raise RevisionConflictError(
            f'The policy is now at revision {revision}; read it again, then send If-Match: "{revision}".'
        )


def check_fits(policy: Policy, model: LoadedModel) -> None:
    """Raise InvalidRequestError if `policy` is for another number of exits than `model` has."""
    exits = len(model.engine.manifest.exits)
    if policy.exits != exits:
        raise InvalidRequestError(
            f"The policy is for {policy.exits} exits, but {model.name} has {exits}: "
            f"it needs {exits - 1} thresholds."
        )


def persist_policy(path: Path, manifest: Manifest, policy: Policy) -> None:
    """Write `policy` into the bundle in `path`. Raises NotPersistedError if it cannot be written, or if
    the bundle no longer has `manifest`."""
    try:
        if read_manifest(path) != manifest:
            raise NotPersistedError(
                f"The bundle in {path} is not the one that is loaded; load it first."
            )
        write_policy(path, policy)
    except (BundleError, WriteError) as error:
        raise NotPersistedError(f"The policy is not changed: {error}") from error
