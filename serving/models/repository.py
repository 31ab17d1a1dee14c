"""The bundles that can be loaded, by name. Clients cannot pass a path."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from exports.bundle.errors import BundleError
from exports.bundle.manifest import MANIFEST
from exports.bundle.reader import read_manifest
from exports.bundle.resolve import resolve_bundle
from serving.errors import NotFoundError, SettingsError
from serving.models.signature import Signature, signature

log = logging.getLogger("offramp.models")


class Repository:
    """The bundles given at the start, and those in a directory whose content may change at any time.

    Bundles of the directory are its subdirectories with a manifest, except those that start with a dot.
    """

    def __init__(self, bundles: Sequence[str | Path], directory: Path | None) -> None:
        """`bundles` are as `resolve_bundle` takes them. Raises SettingsError if `directory` is not a
        directory, and BundleError."""
        if directory is not None and not directory.is_dir():
            raise SettingsError(f"The repository {directory} is not a directory.")
        self.bundles = tuple(resolve_bundle(source).absolute() for source in bundles)
        self.directory = None if directory is None else directory.absolute()
        self._reasons: dict[Path, str] = {}
        self._unloaded: dict[Path, Signature] = {}

    def available(self) -> list[Path]:
        """The bundles in the directory now, sorted by the name of their subdirectory."""
        if self.directory is None or not self.directory.is_dir():
            return []
        return sorted(path for path in self.directory.iterdir() if self._is_bundle(path))

    def names(self) -> dict[Path, str]:
        """The name of every bundle that can be loaded; with a broken manifest, that of its subdirectory."""
        return {path: _name(path) for path in (*self.bundles, *self.available())}

    def find(self, name: str) -> Path:
        """The bundle called `name`; raises NotFoundError, or BundleError if there are two."""
        found = [path for path, called in self.names().items() if called == name]
        if not found:
            raise NotFoundError("There is no bundle of this name to load.")
        if len(found) > 1:
            raise BundleError(f"{found[0]} and {found[1]} are both called {name}.")
        return found[0]

    def subdirectory(self, name: str) -> Path:
        """The bundle in the subdirectory `name` of the directory; raises NotFoundError."""
        for path in self.available():
            if path.name == name:
                return path
        raise NotFoundError("The repository has no bundle in a subdirectory of this name.")

    def refused(self, path: Path, reason: str) -> None:
        """Log why the bundle in `path` is not loaded, unless the same reason was logged before."""
        if self._reasons.get(path) != reason:
            self._reasons[path] = reason
            log.warning("not loaded: %s", reason)

    def forget(self, path: Path) -> None:
        """The bundle in `path` was loaded or removed: log a later reason even if it is the same."""
        self._reasons.pop(path, None)
        self._unloaded.pop(path, None)

    def called(self, name: str) -> dict[Path, Signature]:
        """The bundles called `name` as they are now; there are several if all but one are refused."""
        found = {}
        for path, called in self.names().items():
            if called == name:
                with contextlib.suppress(OSError):
                    found[path] = signature(path)
        return found

    def unloaded(self, bundles: Mapping[Path, Signature]) -> None:
        """The model of `bundles` was unloaded by request."""
        self._unloaded.update(bundles)

    def is_unloaded(self, path: Path, found: Signature) -> bool:
        """Whether the model of the bundle in `path` was unloaded by request, when it was `found` as well."""
        return self._unloaded.get(path) == found

    def _is_bundle(self, path: Path) -> bool:
        if path.name.startswith("."):
            return False
        try:
            return (path / MANIFEST).exists()
        except OSError as error:
            # For example lost+found in the root of a volume.
            self.refused(path, f"{path} cannot be read: {error.strerror}.")
            return False


def _name(path: Path) -> str:
    try:
        return read_manifest(path).name
    except BundleError:
        return path.name
