"""Keeping what is served like the directory of bundles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import awatch

from exports.bundle.reader import read_manifest
from offramp.errors import OfframpError
from serving.service import Service

log = logging.getLogger("offramp.serving")
# Files copied one by one are a bundle once nothing has changed for this long, in seconds.
SETTLE_S = 0.3
# A look now and then too: file systems of a network tell of no changes.
LOOK_MS = 5000

# The files of a bundle: name, number, size and times of change of each. Copies may keep size and time.
Signature = tuple[tuple[str, int, int, int, int], ...]


class Watcher:
    """What was seen of a directory of bundles, and what to do about what is different now."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._repository = service.repository
        self._seen: dict[Path, Signature] = {}

    async def run(self, directory: Path) -> None:
        """Follow `directory` until cancelled."""
        manager = awatch(
            directory, rust_timeout=LOOK_MS, yield_on_timeout=True, debounce=300, step=50
        )
        async for _ in manager:
            try:
                await self.look()
            except Exception:
                log.exception("following %s failed; it is tried again", directory)

    async def look(self) -> None:
        """Load what is new or different, then unload what is gone."""
        directory = self._repository.directory
        before = await asyncio.to_thread(self._signatures)
        await asyncio.sleep(SETTLE_S)
        now = await asyncio.to_thread(self._signatures)
        if directory is None or not directory.is_dir():
            # A share that is away for a while is no order to unload all that came from it.
            return
        for path, signature in now.items():
            # What still changes will be told of again.
            whole = before.get(path) == signature
            if whole and self._seen.get(path) != signature and await self._take(path):
                self._seen[path] = signature
        for path in self._seen.keys() - now.keys():
            del self._seen[path]
            self._repository.forget(path)
        for model in list(self._service.models):
            if model.path.parent == directory and not model.path.is_dir():
                await self._service.manager.unload(model.name, only=model.path)

    async def _take(self, path: Path) -> bool:
        """Load the bundle in `path` if need be; whether that need not be tried again until it changes."""
        try:
            manifest = await asyncio.to_thread(read_manifest, path)
            models = self._service.models
            served = models.get(manifest.name) if manifest.name in models else None
            if served is not None and served.path != path and served.path.is_dir():
                self._repository.refused(
                    path, f"{path}: another bundle is called {manifest.name} already."
                )
                return False
            if served is None or served.path != path or served.engine.manifest != manifest:
                await self._service.manager.load_path(path)
            else:
                await self._service.manager.reread_policy(served)
        except OfframpError as error:
            self._repository.refused(path, str(error))
        return True

    def _signatures(self) -> dict[Path, Signature]:
        found = {}
        for path in self._repository.available():
            with contextlib.suppress(OSError):
                # A link that leads nowhere is a file as well.
                stats = sorted((file.name, file.lstat()) for file in path.iterdir())
                found[path] = tuple(
                    (name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                    for name, stat in stats
                )
        return found


@contextlib.asynccontextmanager
async def watching(service: Service) -> AsyncIterator[None]:
    """Follow the service's repository meanwhile, if its settings say so."""
    directory = service.settings.repository
    if not service.settings.watch or directory is None:
        yield
        return
    task = asyncio.create_task(Watcher(service).run(directory))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
