"""The metrics of canaries: both versions side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.telemetry.histograms import Histogram
from serving.telemetry.metrics import SECONDS

Role = Literal["stable", "canary"]
# Why a canary ended. request: rolled back by a person. replaced: the stable version was replaced or unloaded.
Outcome = Literal["promoted", "request", "replaced", "error_rate", "latency", "agreement"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Mirrored = Literal["agrees", "disagrees", "dropped"]
BOTH = ("model", "role", "version")


class CanaryMetrics:
    """The metrics of all canaries, in `registry`. There are none without a canary."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._share = Gauge(
            "offramp_canary_share",
            "The share of requests that the canary takes.",
            ["model", "version"],
            registry=registry,
        )
        self._requests = Counter(
            "offramp_canary_requests",
            "Requests while a canary runs, by outcome: ok or an error's code.",
            [*BOTH, "outcome"],
            registry=registry,
        )
        self._duration = Histogram(
            "offramp_canary_request_duration_seconds",
            "From a request's start to its answer, while a canary runs.",
            BOTH,
            SECONDS,
            registry,
        )
        self._exits = Counter(
            "offramp_canary_exits",
            "Images that left at an exit, while a canary runs.",
            [*BOTH, "exit"],
            registry=registry,
        )
        self._mirrored = Counter(
            "offramp_canary_mirrored",
            "Images of the canary that the stable version answered as well.",
            ["model", "version", "outcome"],
            registry=registry,
        )
        self._ended = Counter(
            "offramp_canary_ended",
            "Canaries that ended: promoted, or why they were rolled back.",
            ["model", "outcome"],
            registry=registry,
        )

    def started(self, model: str) -> None:
        """A canary of `model` begins: the counters of how it may end are exposed as 0 before they rise."""
        for outcome in OUTCOMES:
            self._ended.labels(model, outcome)

    def share(self, model: str, version: str, share: float) -> None:
        """The canary `version` of `model` takes `share` of its requests."""
        self._share.labels(model, version).set(share)

    def answered(
        self, model: str, role: Role, version: str, exits: Iterable[int], seconds: float
    ) -> None:
        """A request was answered, `seconds` after its arrival; its images left at `exits`."""
        self._requests.labels(model, role, version, "ok").inc()
        self._duration.series(model, role, version).observe(seconds)
        for exit_ in exits:
            self._exits.labels(model, role, version, str(exit_)).inc()

    def failed(self, model: str, role: Role, version: str, code: str) -> None:
        """A request failed by a fault of the server."""
        self._requests.labels(model, role, version, code).inc()

    def mirrored(self, model: str, version: str, outcome: Mirrored) -> None:
        """An image of the canary was answered by the stable version as well, or could not be."""
        self._mirrored.labels(model, version, outcome).inc()

    def ended(self, model: str, version: str, outcome: Outcome) -> None:
        """A canary ended; its counters stay."""
        self._share.remove(model, version)
        self._ended.labels(model, outcome).inc()
