"""Class-activation maps on request: a graph of its own, which costs nothing until somebody asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from exports.bundle.errors import BundleError
from exports.bundle.manifest import GraphEntry, Manifest
from exports.bundle.policy import Floats
from exports.bundle.reader import cam_output, read_graph, stage_input
from serving.errors import BadBundleError, OverCapacityError
from serving.inference.images import decode
from serving.inference.sessions import open_graph

# Requests that are drawn or wait for it; each holds a picture.
MAX_CAM_REQUESTS = 8

Result = TypeVar("Result")


class CamGraph:
    """The maps of the bundle in `path`. Its graph is read, verified and opened when the first is drawn."""

    def __init__(self, path: Path, manifest: Manifest, entry: GraphEntry) -> None:
        self._path, self._manifest, self._entry = path, manifest, entry

    def draw(self, file: bytes, index: int, max_pixels: int) -> list[Floats]:
        """What speaks for class `index` in the image `file`, for every exit: float32 [h, w], from 0 for
        nothing to 1 for its peak.

        One at a time, in any thread. Raises InvalidImageError, and BadBundleError if the graph is not
        what the manifest says by now.
        """
        pixels = decode(file, self._manifest.input, max_pixels)
        names = [cam_output(k) for k in range(1, len(self._manifest.exits) + 1)]
        found = self._session.run(names, {stage_input(1): pixels[None]})
        return [_relative(maps[0, index]) for maps in found]

    @cached_property
    def _session(self) -> Any:
        try:
            content = read_graph(self._path, self._entry)
            return open_graph(self._path, self._manifest, self._entry, content)
        except BundleError as error:
            raise BadBundleError(str(error)) from error


class CamQueue:
    """One thread that draws maps, one request after the other, so that classifying keeps the rest."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offramp-maps")
        self._room = threading.BoundedSemaphore(MAX_CAM_REQUESTS)

    async def take(self, draw: Callable[[], Result]) -> Result:
        """Call `draw` in the thread; raises OverCapacityError at once if too many wait."""
        if not self._room.acquire(blocking=False):
            raise OverCapacityError("As many maps as allowed are waiting to be drawn.", 1)
        drawing = self._thread.submit(draw)
        # Also when the client goes: what has begun still takes its time.
        drawing.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(drawing)

    def close(self) -> None:
        """Finish what was accepted and end the thread."""
        self._thread.shutdown()


def _relative(values: Floats) -> Floats:
    """Evidence against the class counts as none."""
    positive = np.maximum(values, 0)
    peak = positive.max()
    return positive / peak if peak > 0 else positive
