"""Writing a bundle's policy."""

from __future__ import annotations

from pathlib import Path

from exports.bundle.cache import refuse_cached
from exports.bundle.manifest import POLICY
from exports.bundle.policy import Policy
from offramp.files import write_whole


def policy_json(policy: Policy) -> bytes:
    """The content of policy.json. Without `reject_below` earlier versions can read it."""
    later = ("reject_below", "precision_certificate")
    unset = {field for field in later if getattr(policy, field) is None}
    return (policy.model_dump_json(indent=2, exclude=unset) + "\n").encode()


def write_policy(bundle: Path, policy: Policy) -> None:
    """Make `policy` the current policy of the bundle in directory `bundle`, atomically.

    Raises WriteError. Raises BundleError for a bundle in the cache, which must stay as its hash says.
    """
    refuse_cached(bundle)
    write_whole(bundle / POLICY, policy_json(policy))
