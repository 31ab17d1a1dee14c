"""Loading and unloading models as the directory of bundles changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import awatch

from exports.bundle.manifest import MANIFEST, POLICY
from exports.bundle.reader import load_bundle, read_manifest
from offramp.errors import OfframpError
from serving.models.signature import Signature, signature
from serving.periodic import in_background
from serving.service import Service

log = logging.getLogger("offramp.serving")
# A bundle is complete once none of its files has changed for this long.
SETTLE_S = 0.3
# The directory is also polled: network file systems report no changes.
POLL_MS = 5000


class Watcher:
    """Compares a directory of bundles with what was loaded from it, and loads or unloads the difference."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._repository = service.repository
        self._loaded: dict[Path, Signature] = {}
        # Of the bundles that were loaded before there was anything to compare.
        self._at_start = self._signatures()

    async def run(self, directory: Path) -> None:
        """Follow `directory` until cancelled."""
        changes = awatch(
            directory, rust_timeout=POLL_MS, yield_on_timeout=True, debounce=300, step=50
        )
        async for _ in changes:
            try:
                await self.update()
            except Exception:
                log.exception("following %s failed; it is tried again", directory)

    async def update(self) -> None:
        """Load new and changed bundles, then unload those that are gone."""
        directory = self._repository.directory
        before = await asyncio.to_thread(self._signatures)
        await asyncio.sleep(SETTLE_S)
        now = await asyncio.to_thread(self._signatures)
        if directory is None or not directory.is_dir():
            # A network share may be unavailable for a while; its models stay loaded.
            return
        for path, found in now.items():
            # A bundle that still changes is looked at again after its next change.
            settled = before.get(path) == found
            if settled and self._loaded.get(path) != found and await self._load(path, found):
                self._loaded[path] = found
        for path in (self._loaded | self._at_start).keys() - now.keys():
            self._loaded.pop(path, None)
            self._at_start.pop(path, None)
            if path.is_dir():
                self._repository.refused(
                    path,
                    f"{path} has no {MANIFEST} any more. "
                    "The model that was loaded from it is still served.",
                )
            else:
                self._repository.forget(path)
        for model in list(self._service.models):
            if model.path.parent == directory and not model.path.is_dir():
                await self._service.manager.unload(model.name, only=model.path)

    async def _load(self, path: Path, found: Signature) -> bool:
        """Load the bundle in `path` if it is not served, else its policy; False if it should be tried again
        unchanged. A model that was unloaded stays so until its bundle changes."""
        try:
            manifest = await asyncio.to_thread(read_manifest, path)
            models = self._service.models
            served = models.get(manifest.name) if manifest.name in models else None
            if served is not None and served.path != path and served.path.is_dir():
                self._repository.refused(
                    path, f"{path}: another bundle is called {manifest.name} already."
                )
                return False
            if served is None and self._repository.is_unloaded(path, found):
                return True
            if served is None or served.path != path or served.engine.manifest != manifest:
                await self._service.manager.load_path(path)
            else:
                known = self._loaded.get(path) or self._at_start.get(path, found)
                if _without_policy(known) != _without_policy(found):
                    # The model is in memory and goes on; the next start would fail.
                    await asyncio.to_thread(load_bundle, path)
                    self._repository.forget(path)
                await self._service.manager.reread_policy(served)
        except OfframpError as error:
            serves = any(model.path == path for model in self._service.models)
            kept = " The model that was loaded from it is still served." if serves else ""
            self._repository.refused(path, f"{error}{kept}")
        return True

    def _signatures(self) -> dict[Path, Signature]:
        found = {}
        for path in self._repository.available():
            with contextlib.suppress(OSError):
                found[path] = signature(path)
        return found


def _without_policy(signature: Signature) -> Signature:
    return tuple(entry for entry in signature if entry[0] != POLICY)


@contextlib.asynccontextmanager
async def watching(service: Service) -> AsyncIterator[None]:
    """Follow the service's repository within the block, if `watch` is set."""
    directory = service.settings.repository
    if not service.settings.watch or directory is None:
        yield
        return
    # In a thread: it reads the directory.
    watcher = await asyncio.to_thread(Watcher, service)
    async with in_background(watcher.run(directory)):
        yield
