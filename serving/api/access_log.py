"""The access log: a line of JSON per request, written by a thread of its own."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

import orjson
from starlette.types import Scope

from serving.api.schemas import DIGITS, Timing
from serving.inference.engine import Prediction
from serving.scheduling.options import ImageResult

log = logging.getLogger("offramp.serving")
# Lines that wait to be written; more are dropped, so that a slow reader holds up no request.
MAX_QUEUED_LINES = 10_000
MAX_LINES_PER_WRITE = 64
DUMP_OPTIONS = orjson.OPT_APPEND_NEWLINE
# Of the path, which clients choose.
MAX_PATH_CHARS = 1024
# Of what is noted of an answer.
ANSWER_KEYS = ("model", "exits", "confidence", "unsure", "image_errors", "timing_ms", "code")
# Requested every few seconds by orchestrators and monitoring; only their failures are logged.
PROBES = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})


def note_answer(scope: Scope, results: Sequence[ImageResult], timing: Timing) -> None:
    """Note in `scope` what was answered, for the completion hooks."""
    state = scope.setdefault("state", {})
    predictions = [found for found in results if isinstance(found, Prediction)]
    if errors := len(results) - len(predictions):
        state["image_errors"] = errors
    state["exits"] = [prediction.exit for prediction in predictions]
    state["confidence"] = [round(prediction.confidence, DIGITS) for prediction in predictions]
    if unsure := sum(prediction.unsure for prediction in predictions):
        state["unsure"] = unsure
    state["timing_ms"] = timing


def is_probe(scope: Scope) -> bool:
    """Whether the request of `scope` is one of PROBES."""
    return scope["path"] in PROBES


class AccessLog:
    """Writes a line per request to `stream`; a slow reader, or one that is gone, holds up no request.

    A thread and a queue of its own: `logging.handlers.QueueListener` takes three times the CPU for a line.
    """

    def __init__(self, stream: BinaryIO) -> None:
        # Unbuffered: a buffer would keep what a full disk refuses, up to the end of the process.
        self._stream: BinaryIO = getattr(stream, "raw", stream)
        self._lines: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        # Each is written by one thread: lines that did not fit the queue, and lines that were not written.
        self._overflowed = 0
        self._unwritten = 0
        self._ended = False
        self._thread = Thread(target=self._write, name="offramp-access-log", daemon=True)
        self._thread.start()

    def finished(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Log a request; the completion hook."""
        if is_probe(scope) and status < 400:
            return
        if self._lines.qsize() >= MAX_QUEUED_LINES:
            self._overflowed += 1
            return
        state = scope.get("state", {})
        client = scope.get("client")
        line: dict[str, Any] = {
            "time": datetime.now(UTC),
            "request_id": request_id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:MAX_PATH_CHARS],
            "status": status,
            "duration_ms": round(1000 * seconds, 3),
        }
        line |= {key: state[key] for key in ANSWER_KEYS if key in state}
        self._lines.put(line)

    def close(self, within: float = 2.0) -> None:
        """Write the lines that wait, for at most `within` seconds."""
        self._lines.put(None)
        self._thread.join(within)

    def _write(self) -> None:
        """Write lines until None comes. While the disk is full or the reader gone, lines are dropped; the
        first one that is written again says how many."""
        reported = 0
        rest = b""  # the end of a line that was begun
        failing = False
        while lines := self._take():
            dropped = self._overflowed + self._unwritten
            if dropped > reported:
                lines[0]["lines_dropped"] = dropped - reported
            content = rest + b"".join(orjson.dumps(line, option=DUMP_OPTIONS) for line in lines)
            written, error = _write_to(self._stream, content)
            if written > len(rest):
                reported = dropped
            if error is not None and not failing:
                log.error("the access log cannot be written: %s", error.strerror)
            failing = error is not None
            left = content[written:]
            begun = rest if written == 0 else not content[:written].endswith(b"\n")
            rest, left = _split_after_line(left) if begun else (b"", left)
            self._unwritten += left.count(b"\n")

    def _take(self) -> list[dict[str, Any]]:
        """Wait for a line; it and others that wait. Empty at the end."""
        lines: list[dict[str, Any]] = []
        while not self._ended and len(lines) < MAX_LINES_PER_WRITE:
            if lines and self._lines.empty():
                break
            line = self._lines.get()
            if line is None:
                self._ended = True
            else:
                lines.append(line)
        return lines


def _write_to(stream: BinaryIO, content: bytes) -> tuple[int, OSError | None]:
    """How many bytes of `content` were written, and why no more were."""
    written = 0
    try:
        while written < len(content):
            count = stream.write(content[written:])
            if count is None:  # a stream that does not block, and its pipe is full
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            written += count
    except OSError as error:
        return written, error
    return written, None


def _split_after_line(content: bytes) -> tuple[bytes, bytes]:
    line, end, left = content.partition(b"\n")
    return line + end, left
