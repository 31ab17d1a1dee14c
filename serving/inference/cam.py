"""Class-activation maps, from a separate graph that is opened with the first request."""

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
from exports.bundle.reader import IMAGE, cam_output, read_graph
from serving.errors import BadBundleError, OverCapacityError
from serving.inference.engine import decode
from serving.inference.sessions import open_graph

# Requests that are drawn or wait; each holds an image file in memory.
MAX_CAM_REQUESTS = 8

Result = TypeVar("Result")


class CamGraph:
    """The maps of the bundle in `path`. The graph is read, verified and opened with the first map."""

    def __init__(self, path: Path, manifest: Manifest, entry: GraphEntry) -> None:
        self._path, self._manifest, self._entry = path, manifest, entry

    def draw(self, file: bytes, index: int, max_pixels: int) -> list[Floats]:
        """The evidence for class `index` in the image `file`, for every exit: float32 [h, w], from 0 for none
        to 1 for the peak.

        Not thread-safe. Raises InvalidImageError, and BadBundleError if the graph no longer matches the
        manifest.
        """
        pixels = decode(file, self._manifest.input, max_pixels)
        names = [cam_output(k) for k in range(1, len(self._manifest.exits) + 1)]
        outputs = self._session.run(names, {IMAGE: pixels[None]})
        return [_normalize(maps[0, index]) for maps in outputs]

    @cached_property
    def _session(self) -> Any:
        try:
            content = read_graph(self._path, self._entry)
            return open_graph(self._path, self._manifest, self._entry, content)
        except BundleError as error:
            raise BadBundleError(str(error)) from error


class CamQueue:
    """One thread that draws maps and preprocessed images, one request after the other: classification keeps
    the other cores."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offramp-cam")
        self._slots = threading.BoundedSemaphore(MAX_CAM_REQUESTS)

    async def take(self, draw: Callable[[], Result]) -> Result:
        """Call `draw` in the thread. Raises OverCapacityError at once if too many requests wait."""
        if not self._slots.acquire(blocking=False):
            raise OverCapacityError(
                "As many maps and preprocessed images as allowed are waiting to be drawn.", 1
            )
        drawing = self._thread.submit(draw)
        # Not when the client goes: a call that has started still occupies the thread.
        drawing.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(drawing)

    def close(self) -> None:
        """Finish the accepted calls and end the thread."""
        self._thread.shutdown()


def _normalize(values: Floats) -> Floats:
    """`values` with negative evidence as 0, scaled to a peak of 1."""
    positive = np.maximum(values, 0)
    peak = positive.max()
    return positive / peak if peak > 0 else positive
