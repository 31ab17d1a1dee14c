"""Histograms that cost the hot path an append: what was observed is added up in bulk, at the latest when
the metrics are read. The client library's own takes two locks and a search for every observation, some
twenty times a request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# Observations added up at once: few enough to stay in the cache, many enough to pay.
BULK = 2048


class Series:
    """The observations under one set of labels. Any thread may add some."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the buckets' upper ones, rising; the last bucket, without end, is added."""
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0
        self._new: list[float] = []
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Add one observation."""
        self._new.append(value)
        if len(self._new) >= BULK:
            self.totals()

    def totals(self) -> tuple[list[int], float]:
        """How many observations lie at or below each bound and in all, and the sum of them all."""
        with self._lock:
            # One list for ever, of which only the front is taken: others append meanwhile.
            count = len(self._new)
            values = np.asarray(self._new[:count], dtype=np.float64)
            del self._new[:count]
            buckets = np.searchsorted(self._bounds, values, side="left")
            self._counts += np.bincount(buckets, minlength=len(self._counts))
            self._sum += float(values.sum())
            return np.cumsum(self._counts).tolist(), self._sum


class Histogram(Collector):
    """A Prometheus histogram with labels, in `registry`."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._bounds = bounds
        self._ends = [_written(bound) for bound in (*bounds, float("inf"))]
        self._series: dict[tuple[object, ...], Series] = {}
        registry.register(self)

    def series(self, *labels: object) -> Series:
        """Where to put what is observed under these values of the labels."""
        found = self._series.get(labels)
        # Two threads may both come here first; only one's series stays.
        return found or self._series.setdefault(labels, Series(self._bounds))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The histogram without its observations."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The histogram as it is now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, series in list(self._series.items()):
            counts, total = series.totals()
            buckets = list(zip(self._ends, counts, strict=True))
            family.add_metric([str(label) for label in labels], buckets, total)
        yield family


def _written(bound: float) -> str:
    written: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return written
