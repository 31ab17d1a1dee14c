"""Export of the metrics through Ray: every sample as a gauge of the same name, which Ray prefixes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from ray.serve.metrics import Gauge

# Ray reports its own metrics every ten seconds.
EXPORT_INTERVAL_S = 5.0


class Exporter:
    """Copies the samples of `registry` to gauges of Ray.

    Ray's counters and histograms cannot be set to a value, only count again. A gauge can be set, and PromQL
    ignores the type.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._gauges: dict[str, Any] = {}

    def push(self) -> None:
        """Copy every sample once."""
        for family in self._registry.collect():
            for sample in family.samples:
                # Creation times are of no use where processes come and go.
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
        """Push periodically in a thread until the block ends, and once at the end."""
        stop = threading.Event()

        def push_periodically() -> None:
            while not stop.wait(EXPORT_INTERVAL_S):
                self.push()

        thread = threading.Thread(target=push_periodically, name="offramp-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.push()
