"""Metrics of jobs."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class JobMetrics:
    """The metrics of a directory of jobs."""

    def __init__(
        self,
        registry: CollectorRegistry,
        unfinished: Callable[[], float],
        size: Callable[[], float],
    ) -> None:
        """`unfinished` and `size` are asked at every scrape."""
        self._jobs = Counter(
            "offramp_jobs",
            "Jobs that ended: done, failed or deleted.",
            ["outcome"],
            registry=registry,
        )
        self._images = Counter(
            "offramp_job_images",
            "Images of jobs: ok or an error's code.",
            ["outcome"],
            registry=registry,
        )
        self._callbacks = Counter(
            "offramp_job_callbacks",
            "Callbacks of finished jobs: delivered or failed.",
            ["outcome"],
            registry=registry,
        )
        Gauge("offramp_jobs_unfinished", "Jobs that wait or run.", registry=registry).set_function(
            unfinished
        )
        Gauge("offramp_jobs_bytes", "Bytes of all jobs on disk.", registry=registry).set_function(
            size
        )

    def ended(self, outcome: str) -> None:
        """A job ended."""
        self._jobs.labels(outcome).inc()

    def image(self, outcome: str) -> None:
        """An image of a job was answered, or failed with the code `outcome`."""
        self._images.labels(outcome).inc()

    def callback(self, outcome: str) -> None:
        """A callback was delivered, or given up."""
        self._callbacks.labels(outcome).inc()
