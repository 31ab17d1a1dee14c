"""Histograms whose observations cost one list append; they are counted in bulk, at the latest when the
metrics are read. The client library's own take two locks and a search for each of the about twenty
observations of a request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# Observations counted at once: few enough to stay in the CPU's cache.
BULK_SIZE = 2048


class Series:
    """The observations under one set of labels. Any thread may call it."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper bounds of the buckets, ascending; the bucket up to infinity is added."""
        self._bounds = np.asarray(bounds, dtype=np.float64)
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0
        self._new: list[float] = []
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Add one observation."""
        self._new.append(value)
        if len(self._new) >= BULK_SIZE:
            self.totals()

    def observe_all(self, values: Iterable[float]) -> None:
        """Add observations."""
        self._new.extend(values)
        if len(self._new) >= BULK_SIZE:
            self.totals()

    def totals(self) -> tuple[list[int], float]:
        """The number of observations at or below each bound and in total, and the sum of all."""
        with self._lock:
            # Only the front of the list is removed, since other threads append meanwhile.
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
        self._ends = [_format_bound(bound) for bound in (*bounds, float("inf"))]
        self._series: dict[tuple[object, ...], Series] = {}
        registry.register(self)

    def series(self, *labels: object) -> Series:
        """The series with these values of the labels."""
        series = self._series.get(labels)
        # Two threads may create it at the same time; `setdefault` keeps one.
        return series or self._series.setdefault(labels, Series(self._bounds))

    def total(self, *first: object) -> tuple[int, float]:
        """The number and the sum of all observations whose labels begin with `first`."""
        found = [
            series.totals()
            for labels, series in list(self._series.items())
            if labels[: len(first)] == first
        ]
        return sum(counts[-1] for counts, _ in found), sum(value for _, value in found)

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


def _format_bound(bound: float) -> str:
    text: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return text
