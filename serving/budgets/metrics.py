"""The metrics of budgets, by client."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.budgets.bucket import Bucket


class BudgetMetrics:
    """What clients spend, in `registry`. Names are those of the file, so that there are few."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._macs = Counter(
            "offramp_budget_macs",
            "Multiply-accumulates spent on a client's images.",
            ["client"],
            registry=registry,
        )
        self._requests = Counter(
            "offramp_budget_requests",
            "Requests of a client, or groups of its jobs' images; limited are those over its budget.",
            ["client", "limited"],
            registry=registry,
        )
        self._available = Gauge(
            "offramp_budget_available_macs",
            "What a client with a limit can spend at once.",
            ["client"],
            registry=registry,
        )

    def watch(self, client: str, bucket: Bucket) -> None:
        """Report the level of `bucket`, unless it has no limit."""
        self._macs.labels(client)
        for limited in ("true", "false"):
            self._requests.labels(client, limited)
        if bucket.burst < float("inf"):
            self._available.labels(client).set_function(lambda: bucket.level)

    def ended(self, client: str) -> None:
        """The client is no longer in the file, or without a limit; its counters stay."""
        self._available.remove(client)

    def reserved(self, client: str, limited: bool) -> None:
        """A request was admitted."""
        self._requests.labels(client, "true" if limited else "false").inc()

    def spent(self, client: str, macs: float) -> None:
        """A request was answered."""
        self._macs.labels(client).inc(macs)
