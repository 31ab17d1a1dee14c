"""The metrics of drift."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class DriftMetrics:
    """What the tests for drift have found, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._drift = Gauge(
            "offramp_drift",
            "1 while answers differ from the calibration table.",
            ["model", "signal"],
            registry=registry,
        )
        self._evidence = Gauge(
            "offramp_drift_evidence",
            "Evidence of drift, from 0 to 1 at an alarm.",
            ["model", "signal"],
            registry=registry,
        )
        self._tested = Counter(
            "offramp_drift_tested", "Answers tested for drift.", ["model"], registry=registry
        )

    def found(self, model: str, signal: str, drifting: bool, evidence: float) -> None:
        """What a test has found so far."""
        self._drift.labels(model, signal).set(drifting)
        self._evidence.labels(model, signal).set(evidence)

    def tested(self, model: str, answers: int) -> None:
        """So many answers were tested."""
        self._tested.labels(model).inc(answers)

    def ended(self, model: str, signal: str) -> None:
        """A test has ended with its model."""
        self._drift.remove(model, signal)
        self._evidence.remove(model, signal)
