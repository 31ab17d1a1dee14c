"""Classifying files in groups, several at once, so that all workers always have batches."""

from __future__ import annotations

import asyncio
import math
import os
import stat
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from exports.bundle.policy import Policy
from offramp.file_names import shown_name
from offramp.grouping import group
from serving.api.schemas import ErrorAnswer, describe_result
from serving.bulk.rows import Row
from serving.errors import InvalidImageError, OutOfMemoryError, TooLargeError
from serving.models.registry import LoadedModel
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import ImageResult, RequestOptions
from serving.settings import Settings
from serving.telemetry.metrics import Metrics

# Files of a group, which are submitted as one request. A group ends earlier at so many bytes.
GROUP_FILES = 32
GROUP_BYTES = 32 << 20
# Groups in flight besides one per worker: one being read, and one whose last images wait.
SPARE_GROUPS = 2
# Measuring the stages takes as long as hundreds of images.
MIN_MEASURED_FILES = 1000


def classify_files(
    model: LoadedModel,
    policy: Policy,
    top_k: int,
    paths: Sequence[Path],
    settings: Settings,
    write: Callable[[list[Row]], None],
) -> None:
    """Classify `paths` and pass their rows to `write`, in order and in groups.

    A file that cannot be read or decoded has an error in its row. Raises what `write` raises.
    """
    dispatcher = Dispatcher(
        workers=settings.workers,
        # The number of groups limits what waits.
        max_queue_ms=math.inf,
        max_queue_bytes=sys.maxsize,
        max_pixels=settings.max_pixels,
        metrics=Metrics(),
    )
    try:
        if len(paths) >= MIN_MEASURED_FILES:
            dispatcher.open(model.engine)
        bulk = _Bulk(model, policy, top_k, dispatcher, settings)
        asyncio.run(bulk.run(paths, write))
    finally:
        dispatcher.close()


class _Bulk:
    """One run over many files."""

    def __init__(
        self,
        model: LoadedModel,
        policy: Policy,
        top_k: int,
        dispatcher: Dispatcher,
        settings: Settings,
    ) -> None:
        self._engine = model.engine
        self._options = RequestOptions(policy)
        self._top_k = top_k
        self._dispatcher = dispatcher
        self._groups = settings.workers + SPARE_GROUPS
        self._max_file_bytes = settings.max_queue_bytes

    async def run(self, paths: Sequence[Path], write: Callable[[list[Row]], None]) -> None:
        """See `classify_files`."""
        async for rows in self._rows(paths):
            write(rows)

    async def _rows(self, paths: Sequence[Path]) -> AsyncIterator[list[Row]]:
        groups = _group(paths)
        running: deque[asyncio.Task[list[Row]]] = deque()
        try:
            while True:
                # Sizes are read from the disk.
                members = await asyncio.to_thread(next, groups, None)
                if members is None:
                    break
                running.append(asyncio.create_task(self._classify(members)))
                if len(running) == self._groups:
                    yield await running.popleft()
            while running:
                yield await running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _classify(self, paths: list[Path]) -> list[Row]:
        read = await asyncio.to_thread(self._read, paths)
        files = [content for content in read if isinstance(content, bytes)]
        results: Iterator[ImageResult] = iter(await self._predict(files))
        manifest = self._engine.manifest
        rows = []
        for path, content in zip(paths, read, strict=True):
            entry = (
                describe_result(next(results), manifest, self._top_k)
                if isinstance(content, bytes)
                else content
            )
            rows.append(Row(shown_name(path), entry))
        return rows

    async def _predict(self, files: list[bytes]) -> list[ImageResult]:
        try:
            result = await self._dispatcher.classify(self._engine, files, self._options)
        except InvalidImageError as error:
            # Of a lone file.
            return [InvalidImageError(str(error))]
        except OutOfMemoryError:
            return [OutOfMemoryError()] * len(files)
        return result.predictions

    def _read(self, paths: list[Path]) -> list[bytes | ErrorAnswer]:
        return [self._content(path) for path in paths]

    def _content(self, path: Path) -> bytes | ErrorAnswer:
        """The file, or why it cannot be read."""
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return ErrorAnswer("It is a pipe or a device, not a file.", "unreadable")
                content = file.read(self._max_file_bytes + 1)
        except OSError as error:
            return ErrorAnswer(f"The file cannot be read: {error.strerror}.", "unreadable")
        if len(content) > self._max_file_bytes:
            limit = self._max_file_bytes
            return ErrorAnswer(f"The file is larger than {limit} bytes.", TooLargeError.code)
        return content


def _open_at_once(path: str, flags: int) -> int:
    """Open `path` without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _group(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """`paths` in groups of GROUP_FILES, or as many as have GROUP_BYTES; at least one."""
    return group(paths, _size, GROUP_FILES, GROUP_BYTES)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
