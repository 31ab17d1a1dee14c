"""Where bundles lie that can be loaded, and which of them have which name. No path comes from a client."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from exports.bundle.errors import BundleError
from exports.bundle.manifest import MANIFEST
from exports.bundle.reader import read_manifest
from exports.bundle.resolve import resolve_bundle
from serving.errors import NotFoundError, SettingsError

log = logging.getLogger("offramp.models")


class Repository:
    """The bundles named at the start, and those in a directory that may change at any time.

    A bundle of the directory is a subdirectory with a manifest whose name has no dot in front.
    """

    def __init__(self, bundles: Sequence[str | Path], directory: Path | None) -> None:
        """`bundles` are as `resolve_bundle` takes them. Raises SettingsError if `directory` is not a
        directory, and BundleError."""
        if directory is not None and not directory.is_dir():
            raise SettingsError(f"The repository {directory} is not a directory.")
        self.bundles = tuple(resolve_bundle(source).absolute() for source in bundles)
        self.directory = None if directory is None else directory.absolute()
        self._reasons: dict[Path, str] = {}

    def available(self) -> list[Path]:
        """The bundles in the directory now, in the order of their directories' names."""
        if self.directory is None or not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.iterdir() if self._is_bundle(path))

    def names(self) -> dict[Path, str]:
        """What every bundle that can be loaded is called; one with a broken manifest, as its directory."""
        return {path: _name(path) for path in (*self.bundles, *self.available())}

    def find(self, name: str) -> Path:
        """The bundle called `name`; raises NotFoundError, or BundleError if there are two."""
        found = [path for path, called in self.names().items() if called == name]
        if not found:
            raise NotFoundError("There is no bundle of this name to load.")
        if len(found) > 1:
            raise BundleError(f"{found[0]} and {found[1]} are both called {name}.")
        return found[0]

    def refused(self, path: Path, reason: str) -> None:
        """Log why the bundle in `path` is not loaded, unless that was said already."""
        if self._reasons.get(path) != reason:
            self._reasons[path] = reason
            log.warning("not loaded: %s", reason)

    def forget(self, path: Path) -> None:
        """The bundle in `path` is loaded, or gone: what is wrong with it later is news."""
        self._reasons.pop(path, None)

    def _is_bundle(self, path: Path) -> bool:
        if path.name.startswith("."):
            return False
        try:
            return (path / MANIFEST).exists()
        except OSError as error:
            # A volume's lost+found, for one.
            self.refused(path, f"{path} cannot be read: {error.strerror}.")
            return False


def _name(path: Path) -> str:
    try:
        return read_manifest(path).name
    except BundleError:
        return path.name
