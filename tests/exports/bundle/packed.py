"""A packed bundle, and the content of the bundle cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Packed:
    """A packed bundle: its file, the content and the sha256 of it."""

    path: Path
    content: bytes
    digest: str


def cache_entries(root: Path) -> list[str]:
    """The names in the cache, except for its lock."""
    return sorted(f.name for f in root.iterdir() if f.name != ".lock") if root.exists() else []
