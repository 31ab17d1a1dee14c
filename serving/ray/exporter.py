"""Our metrics through Ray's exporter: every sample as a gauge of the same name, which Ray prefixes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from ray.serve.metrics import Gauge

# Ray's own reports go out every ten seconds.
EXPORT_INTERVAL_S = 5.0


class Exporter:
    """Passes `registry` on. Ray has no way to take over a counter's or a histogram's state, only to
    count the same things a second time; a gauge takes any value, and PromQL does not ask for types."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Any] = {}

    def push(self) -> None:
        """Pass every sample on once."""
        for family in self._registry.collect():
            for sample in family.samples:
                # When a child was made, which is of no use where processes come and go.
                if sample.name.endswith("_created"):
                    continue
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    names = tuple(sample.labels)
                    gauge = Gauge(sample.name, family.documentation, tag_keys=names)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, tags=dict(sample.labels))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Push in a thread of its own until the block ends, and once then."""
        stop = threading.Event()

        def push_on() -> None:
            while not stop.wait(EXPORT_INTERVAL_S):
                self.push()

        thread = threading.Thread(target=push_on, name="offramp-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.push()
