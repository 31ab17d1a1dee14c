"""The metrics of shadow checks."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.scheduling.options import ShadowDrop


class ShadowMetrics:
    """What the shadows of every model have shown, in `registry`. Any thread may call any method."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._checked = Counter(
            "offramp_shadows",
            "Images that left at an exit and then ran to full depth, by whether it agreed.",
            ["model", "exit", "agrees"],
            registry=registry,
        )
        self._dropped = Counter(
            "offramp_shadows_dropped",
            "Images chosen for full depth that did not get there, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self._raises = Counter(
            "offramp_threshold_raises",
            "Thresholds raised because an exit agreed with full depth less often than promised.",
            ["model", "exit"],
            registry=registry,
        )
        self._promised = Gauge(
            "offramp_agreement_promised",
            "The least agreement with full depth that an exit promises.",
            ["model", "exit"],
            registry=registry,
        )
        self._highest = Gauge(
            "offramp_agreement_limit",
            "Upper confidence limit of the agreement of an exit with full depth.",
            ["model", "exit"],
            registry=registry,
        )

    def watched(self, model: str, promised: dict[int, float]) -> None:
        """`promised` are the promises of the checked exits of `model`, by exit."""
        for reason in get_args(ShadowDrop):
            self._dropped.labels(model, reason)
        for exit_, value in promised.items():
            self._promised.labels(model, str(exit_)).set(value)
            self._highest.labels(model, str(exit_)).set(1.0)
            self._raises.labels(model, str(exit_))
            for agrees in ("true", "false"):
                self._checked.labels(model, str(exit_), agrees)

    def checked(self, model: str, exit_: int, agrees: bool) -> None:
        """A shadow reached full depth."""
        self._checked.labels(model, str(exit_), "true" if agrees else "false").inc()

    def limit(self, model: str, exit_: int, high: float) -> None:
        """The upper limit of an exit's agreement is `high` now."""
        self._highest.labels(model, str(exit_)).set(high)

    def dropped(self, model: str, reason: ShadowDrop) -> None:
        """A shadow was dropped."""
        self._dropped.labels(model, reason).inc()

    def raised(self, model: str, exit_: int) -> None:
        """The threshold of an exit was raised."""
        self._raises.labels(model, str(exit_)).inc()

    def ended(self, model: str, exits: list[int]) -> None:
        """The `exits` of `model` are no longer checked; counters stay."""
        for exit_ in exits:
            self._promised.remove(model, str(exit_))
            self._highest.remove(model, str(exit_))
