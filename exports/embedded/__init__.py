"""The bundle that comes with Offramp; `docs/guide/training.md` says how it was made."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "cifar100-oto"


def embedded() -> Path:
    """The directory of the embedded bundle."""
    return Path(__file__).parent / EMBEDDED
