"""The shadow checks of one policy: what the shadows of each exit show, and which thresholds they raise."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.scheduling.options import ShadowResult
from serving.shadow.promises import ERROR, Promise, supported_threshold
from serving.shadow.sequences import AgreementSequences, Span

# Shadows from which a higher threshold is chosen.
MAX_RECENT = 2_000
# An exit that nothing leaves.
CLOSED = 1.0


@dataclass(frozen=True)
class Raise:
    """The threshold of exit `exit_` was too low by `span`, and should be `after` instead of `before`."""

    exit_: int
    before: float
    after: float
    promised: float
    span: Span

    @property
    def closed(self) -> bool:
        """Whether nothing leaves at the exit any more."""
        return self.after > CLOSED


@dataclass
class ExitCheck:
    """One exit: its promise, its threshold, and the shadows since that was raised. `shadows` counts all."""

    promise: Promise
    threshold: float
    sequences: AgreementSequences
    shadows: int = 0
    recent: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=MAX_RECENT))

    def add(self, measured: float, agrees: bool) -> None:
        """Note a shadow that left here at the value `measured` of the policy's measure."""
        self.shadows += 1
        self.recent.append((measured, agrees))
        self.sequences.add(agrees)

    def needed_raise(self) -> Raise | None:
        """The raise that the shadows call for, None while the promise may be kept."""
        if not self.sequences.is_below:
            return None
        span = self.sequences.lowest()
        assert span is not None
        shadows = list(self.recent)[-span.samples :]
        promised = self.promise.promised
        after = supported_threshold(shadows, promised, self.threshold)
        return Raise(self.promise.exit_, self.threshold, after, promised, span)

    def raised_to(self, threshold: float) -> None:
        """The threshold is `threshold` now."""
        self.threshold = threshold
        self.recent.clear()
        self.sequences.restart()


class PolicyCheck:
    """The checked exits of one policy, by number. Promises stay those of the policy as it was set, also when
    thresholds were raised."""

    def __init__(self, promises: Sequence[Promise], thresholds: Sequence[float]) -> None:
        """`thresholds` has one for each exit but the last."""
        self.exits = {
            promise.exit_: ExitCheck(
                promise,
                thresholds[promise.exit_ - 1],
                AgreementSequences(promise.promised, ERROR / 2 / len(promises)),
            )
            for promise in promises
        }

    def add(self, result: ShadowResult) -> None:
        """Note a shadow of this policy, at the thresholds that it has now."""
        check = self.exits.get(result.exit_)
        if check is not None:
            check.add(result.measured, result.agrees)

    def needed_raises(self) -> list[Raise]:
        """The raises that the shadows call for now."""
        return [
            needed for check in self.exits.values() if (needed := check.needed_raise()) is not None
        ]

    def apply(self, raises: Sequence[Raise]) -> None:
        """The thresholds of `raises` are in force now."""
        for one in raises:
            self.exits[one.exit_].raised_to(one.after)
