"""How often the samples of an exit agree with full depth: confidence sequences that begin again and again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from serving.confidence_sequence import BernoulliSequence

# A long sequence of samples that agreed outweighs many that differ, so another sequence begins after so many.
BLOCK = 100
# A sequence ends after so many samples.
MAX_SAMPLES = 10_000


@dataclass(frozen=True)
class Span:
    """The last `samples` samples, of which `agreed` agreed, and the limits of the probability to agree."""

    samples: int
    agreed: int
    low: float
    high: float


class AgreementSequences:
    """Confidence sequences of one exit; every BLOCK samples another one begins.

    The jth of them has the level error / (j (j + 1)). These add up to `error`, so all limits of all
    sequences hold at every look with a probability of at least 1 - `error`, for as long as it runs.
    """

    def __init__(self, promised: float, error: float) -> None:
        """`promised` is the probability to agree that is tested."""
        self.promised = promised
        self._error = error
        self._begun = 0
        self._in_block = 0
        self._running: deque[BernoulliSequence] = deque(maxlen=MAX_SAMPLES // BLOCK)

    def restart(self) -> None:
        """End the running sequences. The levels of those that follow still count on."""
        self._in_block = 0
        self._running.clear()

    def add(self, agrees: bool) -> None:
        """Note the next sample."""
        if self._in_block == 0:
            self._begun += 1
            level = self._error / (self._begun * (self._begun + 1))
            self._running.append(BernoulliSequence(level))
        self._in_block = (self._in_block + 1) % BLOCK
        for one in self._running:
            one.add(agrees)

    @property
    def is_below(self) -> bool:
        """Whether the upper limit of a sequence is below `promised`."""
        return any(one.is_below(self.promised) for one in self._running)

    def lowest(self) -> Span | None:
        """The span with the lowest upper limit, None without samples."""
        found: Span | None = None
        for one in self._running:
            if found is None or one.is_below(found.high):
                found = Span(one.count, one.events, *one.interval())
        return found
