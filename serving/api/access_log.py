"""The access log: a line of JSON per request, written by a thread of its own."""

from __future__ import annotations

import logging
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
        self._stream = stream
        self._lines: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._dropped = 0
        self._thread = Thread(target=self._write, name="offramp-access-log", daemon=True)
        self._thread.start()

    def finished(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Log a request; the completion hook."""
        if is_probe(scope) and status < 400:
            return
        if self._lines.qsize() >= MAX_QUEUED_LINES:
            self._dropped += 1
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
        if self._dropped:
            line["lines_dropped"], self._dropped = self._dropped, 0
        self._lines.put(line)

    def close(self, within: float = 2.0) -> None:
        """Write the lines that wait, for at most `within` seconds."""
        self._lines.put(None)
        self._thread.join(within)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
                if self._lines.empty():
                    self._stream.flush()
            except OSError as error:
                log.error("the access log ends here: %s", error.strerror)
                return
