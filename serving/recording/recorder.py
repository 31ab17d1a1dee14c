"""Recording requests in a thread of its own. A slow or full disk delays no request."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from exports.bundle.manifest import Manifest
from exports.tuning.requests.recorded import Key, network_hash
from serving.errors import RecordingError
from serving.inference.engine import Prediction
from serving.recording.metrics import RecordingMetrics
from serving.recording.store import RecordStore
from serving.scheduling.options import ImageResult

log = logging.getLogger("offramp.recording")
Images = Sequence[bytes] | NDArray[np.uint8]
T = TypeVar("T")
# Requests that wait to be written, and the bytes of their images; beyond it requests are not recorded.
MAX_QUEUED = 2_000
MAX_QUEUED_BYTES = 64 << 20
# After the disk failed, it is tried again so much later.
RETRY_S = 5.0
# Requests that are written together.
MAX_BATCH = 256
DIGITS = 3


@dataclass(frozen=True)
class _Entry:
    """An answered request. `images` are None unless they are recorded."""

    request_id: str
    answered: datetime
    manifest: Manifest
    results: Sequence[ImageResult]
    sampled: bool
    images: Images | None
    size: int


class Recorder:
    """Writes answered requests to a RecordStore. Any thread may call it."""

    def __init__(self, store: RecordStore, metrics: RecordingMetrics, *, with_images: bool) -> None:
        self._store = store
        self._metrics = metrics
        self._with_images = with_images
        self._queue: SimpleQueue[_Entry | Callable[[], None] | None] = SimpleQueue()
        # Each is changed by one thread only.
        self._bytes_in = 0
        self._bytes_out = 0
        self._failed_at: float | None = None
        self._thread = Thread(target=self._run, name="offramp-record", daemon=True)
        self._thread.start()

    def record(
        self,
        request_id: str,
        answered: datetime,
        manifest: Manifest,
        results: Sequence[ImageResult],
        images: Images | None,
        *,
        sampled: bool,
    ) -> None:
        """Record an answer, whose predictions have their logits; see exports.tuning.requests.recorded.
        Its `images` are written if images are."""
        kept = images if self._with_images else None
        size = 0 if kept is None else _size(kept)
        waiting = self._bytes_in - self._bytes_out
        if self._queue.qsize() >= MAX_QUEUED or (size and waiting + size > MAX_QUEUED_BYTES):
            self._metrics.dropped("queue_full", len(results))
            return
        self._bytes_in += size
        self._queue.put(_Entry(request_id, answered, manifest, results, sampled, kept, size))

    async def find(self, request_id: str, image: int) -> dict[str, Any] | None:
        """The latest record of an image, None if there is none. Raises RecordingError."""
        return await self._call(lambda: self._store.find(request_id, image))

    async def label(self, key: Key, label: int) -> bool:
        """Store a label; False if its record is gone. Raises RecordingError if it cannot be written."""
        return await self._call(lambda: self._store.label(key, label))

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._store.close()

    async def _call(self, call: Callable[[], T]) -> T:
        """The result of `call` in the thread, after what was recorded before."""
        if self._queue.qsize() >= MAX_QUEUED:
            raise RecordingError("The server has too many records waiting to be written.")
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "a line is malformed"
                future.set_exception(RecordingError(f"The records are unavailable: {reason}."))

        self._queue.put(run)
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        open_ = True
        while open_:
            items = [self._queue.get()]
            while not self._queue.empty() and len(items) < MAX_BATCH:
                items.append(self._queue.get())
            entries: list[_Entry] = []
            for item in items:
                if isinstance(item, _Entry):
                    entries.append(item)
                    continue
                self._write(entries)
                entries = []
                if item is None:
                    open_ = False
                else:
                    item()
            self._write(entries)

    def _write(self, entries: list[_Entry]) -> None:
        for entry in entries:
            self._bytes_out += entry.size
        if not entries:
            return
        if self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_S:
            self._metrics.dropped("disk", sum(len(entry.results) for entry in entries))
            return
        lines = [line for entry in entries for line in _lines(entry)]
        fitting = [line for line in lines if len(line) <= self._store.max_line_bytes]
        self._metrics.dropped("too_large", len(lines) - len(fitting))
        try:
            self._store.append(fitting)
        except OSError as error:
            if self._failed_at is None:
                log.error("requests are not recorded: %s", error.strerror)
            self._failed_at = time.monotonic()
            self._metrics.dropped("disk", len(fitting))
            return
        if self._failed_at is not None:
            log.warning("requests are recorded again")
            self._failed_at = None
        self._metrics.written(len(fitting))


def _lines(entry: _Entry) -> list[bytes]:
    """The lines of an answered request, one for each image."""
    time = entry.answered.isoformat(timespec="microseconds")
    lines = []
    for number, prediction in enumerate(entry.results):
        if not isinstance(prediction, Prediction):
            continue  # an image with an error
        assert prediction.logits is not None
        content: dict[str, Any] = {
            "id": entry.request_id,
            "image": number,
            "time": time,
            "model": entry.manifest.name,
            "network": network_hash(entry.manifest),
            "exit": prediction.exit,
            "sampled": entry.sampled,
            "logits": prediction.logits.round(DIGITS),
        }
        if entry.images is not None:
            content["file"] = base64.b64encode(_file(entry.images[number])).decode()
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        lines.append(orjson.dumps(content, option=options))
    return lines


def _size(images: Images) -> int:
    """The bytes of `images`."""
    return images.nbytes if isinstance(images, np.ndarray) else sum(map(len, images))


def _file(image: bytes | NDArray[np.uint8]) -> bytes:
    """An image file: as it was sent, or a PNG of pixels."""
    if isinstance(image, bytes):
        return image
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()
