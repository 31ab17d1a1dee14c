"""The TOML files that ship with Offramp."""

from __future__ import annotations

from importlib.resources.abc import Traversable


def toml_names(folder: Traversable) -> list[str]:
    """The names, without suffix, of the TOML files in `folder`, sorted."""
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))
