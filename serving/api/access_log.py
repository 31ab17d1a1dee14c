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

from serving.api.schemas import Timing
from serving.inference.engine import Prediction

log = logging.getLogger("offramp.serving")
# Lines waiting for whoever reads them; past that they are dropped, since requests come first.
MAX_WAITING_LINES = 10_000
# Characters of an address, which clients choose.
MAX_PATH_CHARS = 1024
# What asks every few seconds, forever, and drowns the rest; their failures are logged.
PROBES = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})


def note_answer(scope: Scope, predictions: Sequence[Prediction], timing: Timing) -> None:
    """Note what was answered, for whoever is told when the request of `scope` is finished."""
    state = scope.setdefault("state", {})
    state["exits"] = [prediction.exit for prediction in predictions]
    state["timing_ms"] = timing


def is_probe(scope: Scope) -> bool:
    """Whether the request of `scope` is one of PROBES."""
    return scope["path"] in PROBES


class AccessLog:
    """Writes to `stream` what `finished` is told; a reader that is slow or gone holds up no request."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._dropped = 0
        self._thread = Thread(target=self._write, name="offramp-access-log", daemon=True)
        self._thread.start()

    def finished(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Note one request."""
        if is_probe(scope) and status < 400:
            return
        if self._lines.qsize() >= MAX_WAITING_LINES:
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
        line |= {key: state[key] for key in ("model", "exits", "timing_ms", "code") if key in state}
        if self._dropped:
            line["lines_dropped"], self._dropped = self._dropped, 0
        self._lines.put(line)

    def close(self, within: float = 2.0) -> None:
        """Write what is left, for at most `within` seconds."""
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
