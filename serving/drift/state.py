"""The drift of one model under one policy: its tests, and what they have found."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import numpy as np

from serving.drift.detector import AdaptiveBets, Detector, TiltBets
from serving.drift.reference import SIGNALS, Answers, Reference, Signal

# Of all signals of a model together: a false alarm within n answers has a probability of at most n / this.
ANSWERS_PER_FALSE_ALARM = 1e8
# An alarm ends after so many answers without another.
CLEAR_ANSWERS = 2_000
# Answers that the observed shares are of.
RECENT_ANSWERS = 1_000


@dataclass(frozen=True)
class SignalStatus:
    """One signal's test: whether it holds an alarm, since when, and how near it is to the next (0 to 1)."""

    signal: Signal
    drifting: bool
    since: datetime | None
    evidence: float


@dataclass(frozen=True)
class Shares:
    """Where answers left, as shares by exit, and their mean confidence."""

    exit_shares: list[float]
    mean_confidence: float


@dataclass(frozen=True)
class DriftStatus:
    """The tests of a model's answers since they started: under this policy, on this server.

    `observed` is of the last `recent` of the answers tested, None without any.
    """

    answers: int
    started: datetime
    signals: list[SignalStatus]
    recent: int
    expected: Shares
    observed: Shares | None

    @property
    def sentence(self) -> str:
        """The state in a sentence."""
        alarms = [status for status in self.signals if status.drifting]
        if self.observed is None:
            return "No answers have been tested yet."
        if not alarms:
            return (
                f"{self.answers:,} answers have been tested: no drift from the calibration table."
            )
        since = min(status.since for status in alarms if status.since is not None)
        names = ", ".join(status.signal for status in alarms)
        deepest = len(self.expected.exit_shares)
        return (
            f"Since {since:%Y-%m-%d %H:%M} UTC answers differ from the calibration table ({names}): "
            f"of the last {self.recent:,} answers {self.observed.exit_shares[-1]:.0%} left at exit {deepest} "
            f"({self.expected.exit_shares[-1]:.0%} in the table), with a mean confidence of "
            f"{self.observed.mean_confidence:.2f} ({self.expected.mean_confidence:.2f})."
        )


@dataclass
class _Alarm:
    since: datetime
    answers_since: int = 0


@dataclass
class DriftState:
    """The tests of one model under one policy. One thread at a time may call it."""

    reference: Reference
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    seed: int | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        limit = ANSWERS_PER_FALSE_ALARM * len(SIGNALS)
        self._detectors = {
            signal: Detector(
                counts,
                partial(AdaptiveBets, len(counts)) if signal == "classes" else TiltBets,
                answers_per_false_alarm=limit,
                rng=rng,
            )
            for signal, counts in self.reference.counts.items()
        }
        self._alarms: dict[Signal, _Alarm] = {}
        self._answers = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT_ANSWERS)

    def update(self, answers: Answers) -> list[Signal]:
        """Test the next answers; the signals that begin to drift with them."""
        count = len(answers.exits)
        self._answers += count
        confidence = answers.confidence.tolist()
        self._recent.extend(zip(answers.exits.tolist(), confidence, strict=True))
        began: list[Signal] = []
        for signal, categories in self.reference.categories(answers).items():
            found = self._detectors[signal].update(categories)
            alarm = self._alarms.get(signal)
            if found:
                if alarm is None:
                    began.append(signal)
                    alarm = self._alarms[signal] = _Alarm(datetime.now(UTC))
                alarm.answers_since = count - 1 - found[-1]
            elif alarm is not None:
                alarm.answers_since += count
            if alarm is not None and alarm.answers_since >= CLEAR_ANSWERS:
                del self._alarms[signal]
        return began

    def status(self) -> DriftStatus:
        """What the tests have found so far."""
        table = self.reference.answers
        exits = self.reference.exits
        signals = []
        for signal, detector in self._detectors.items():
            alarm = self._alarms.get(signal)
            since = None if alarm is None else alarm.since
            signals.append(
                SignalStatus(signal, alarm is not None, since, round(detector.evidence, 3))
            )
        recent = list(self._recent)
        observed = None
        if recent:
            places, confidence = zip(*recent, strict=True)
            observed = _shares(np.array(places), np.array(confidence), exits)
        expected = _shares(table.exits, table.confidence, exits)
        return DriftStatus(self._answers, self.started, signals, len(recent), expected, observed)


def _shares(places: np.ndarray, confidence: np.ndarray, exits: int) -> Shares:
    shares = np.bincount(places, minlength=exits) / len(places)
    return Shares(shares.round(4).tolist(), round(float(confidence.mean()), 4))
