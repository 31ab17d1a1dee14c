"""Small files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from exports.bundle import POLICY
from exports.cache import refuse_cached
from exports.policy import Policy


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path` in one step: a kill or a full disk leaves what was there.

    Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A temporary file is private; a file of a bundle is as readable as its neighbours.
        part.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_policy(bundle: Path, policy: Policy) -> None:
    """Make `policy` the current one of the bundle in directory `bundle`, in one step.

    Raises OSError, and BundleError if the bundle was unpacked from a packed one: that stays as its
    hash says.
    """
    refuse_cached(bundle)
    write_whole(bundle / POLICY, (policy.model_dump_json(indent=2) + "\n").encode())
