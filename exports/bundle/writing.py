"""Small files of a bundle that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

from exports.bundle.cache import refuse_cached
from exports.bundle.manifest import POLICY
from exports.bundle.policy import Policy
from offramp.files import write_whole


def write_policy(bundle: Path, policy: Policy) -> None:
    """Make `policy` the current one of the bundle in directory `bundle`, in one step.

    Raises WriteError, and BundleError if the bundle was unpacked from a packed one: that stays as its
    hash says.
    """
    refuse_cached(bundle)
    write_whole(bundle / POLICY, (policy.model_dump_json(indent=2) + "\n").encode())
