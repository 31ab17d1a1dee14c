"""The metrics of gears."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge


class GearMetrics:
    """The current gear of every model, and its shifts, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gear = Gauge(
            "offramp_gear",
            "The current gear; 0 is the policy in force.",
            ["model"],
            registry=registry,
        )
        self._shifts = Counter(
            "offramp_gear_shifts",
            "Shifts of gears, down to a cheaper or up to a more accurate one.",
            ["model", "direction"],
            registry=registry,
        )

    def watched(self, model: str, gear: int) -> None:
        """`model` is served in `gear`."""
        self._gear.labels(model).set(gear)
        for direction in ("down", "up"):
            self._shifts.labels(model, direction)

    def shifted(self, model: str, gear: int, direction: Literal["down", "up"]) -> None:
        """`model` shifted to `gear`."""
        self._gear.labels(model).set(gear)
        self._shifts.labels(model, direction).inc()

    def ended(self, model: str) -> None:
        """`model` is no longer served with gears; its counters stay."""
        self._gear.remove(model)
