"""The metrics of recording."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

# The queue was full, the disk failed, a line was too large, or the server was too busy to run all exits.
DropReason = Literal["queue_full", "disk", "too_large", "busy"]


class RecordingMetrics:
    """Lines of answered images, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._written = Counter(
            "offramp_recorded", "Lines written of answered images.", registry=registry
        )
        self._dropped = Counter(
            "offramp_record_dropped",
            "Lines of answered images not written, by reason.",
            ["reason"],
            registry=registry,
        )

    def written(self, lines: int) -> None:
        """Lines were written."""
        self._written.inc(lines)

    def dropped(self, reason: DropReason, lines: int) -> None:
        """Lines were not written."""
        self._dropped.labels(reason).inc(lines)
