"""Confidence sequences: how often samples agree with full depth, with limits that are valid at every look.

Of n samples s agreed. If each agrees with probability p, whatever the ones before did, the beta-binomial
mixture with Jeffreys' prior

    M(p) = B(s + 1/2, n - s + 1/2) / (B(1/2, 1/2) p^s (1 - p)^(n - s))

is a martingale in n with mean 1 (Robbins 1970, Ann. Math. Statist. 41, 1397; Howard et al. 2021, arXiv
1810.08240; as a bet on each sample: Waudby-Smith and Ramdas 2024, arXiv 2010.09686). By Ville's inequality
{p: M(p) < 1 / a} holds the true p at every n at once with a probability of at least 1 - a.

"The upper limit is below q" depends on s only by being small. So if every sample agrees with a probability
of at least q, which may vary and depend on the ones before, that happens with a probability of at most a.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

# A long sequence of samples that agreed outweighs many that differ, so another sequence begins after so many.
BLOCK = 100
# A sequence ends after so many samples.
MAX_SAMPLES = 10_000
BISECTIONS = 40
# Probabilities are kept this far from 0 and 1, whose logarithms are infinite.
LEAST = 1e-9


@dataclass(frozen=True)
class Span:
    """The last `samples` samples, of which `agreed` agreed, and the limits of the probability to agree."""

    samples: int
    agreed: int
    low: float
    high: float


@dataclass(slots=True)
class _Sequence:
    """One sequence: its counts, the logarithm of M(promised), and that of 1 / level."""

    needed: float
    samples: int = 0
    agreed: int = 0
    evidence: float = 0.0

    def log_likelihood(self, p: float) -> float:
        """The logarithm of p^s (1 - p)^(n - s)."""
        return self.agreed * _log(p) + (self.samples - self.agreed) * _log(1 - p)

    def excludes(self, p: float, mixture: float) -> bool:
        """Whether `p` is above the upper limit; `mixture` is the logarithm of the numerator of M."""
        return self.agreed < p * self.samples and self._is_out(p, mixture)

    def limit(self, mixture: float, outside: float) -> float:
        """The limit between the observed share and `outside`, 0 or 1, by bisection."""
        inside = self.agreed / self.samples
        for _ in range(BISECTIONS):
            middle = (inside + outside) / 2
            if self._is_out(middle, mixture):
                outside = middle
            else:
                inside = middle
        return outside

    def _is_out(self, p: float, mixture: float) -> bool:
        return mixture - self.log_likelihood(p) >= self.needed


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
        self._running: deque[_Sequence] = deque(maxlen=MAX_SAMPLES // BLOCK)

    def restart(self) -> None:
        """End the running sequences. The levels of those that follow still count on."""
        self._in_block = 0
        self._running.clear()

    def add(self, agrees: bool) -> None:
        """Note the next sample."""
        if self._in_block == 0:
            self._begun += 1
            needed = math.log(self._begun * (self._begun + 1) / self._error)
            self._running.append(_Sequence(needed))
        self._in_block = (self._in_block + 1) % BLOCK
        expected = _log(self.promised if agrees else 1 - self.promised)
        for one in self._running:
            alike = one.agreed if agrees else one.samples - one.agreed
            # The mixture is the product of the probabilities that it gave each sample before it came.
            one.evidence += math.log((alike + 0.5) / (one.samples + 1)) - expected
            one.samples += 1
            one.agreed += agrees

    @property
    def is_below(self) -> bool:
        """Whether the upper limit of a sequence is below `promised`."""
        return any(
            one.evidence >= one.needed and one.agreed < self.promised * one.samples
            for one in self._running
        )

    def lowest(self) -> Span | None:
        """The span with the lowest upper limit, None without samples."""
        found: Span | None = None
        for one in self._running:
            mixture = one.evidence + one.log_likelihood(self.promised)
            if found is None or one.excludes(found.high, mixture):
                low, high = (one.limit(mixture, outside) for outside in (0.0, 1.0))
                found = Span(one.samples, one.agreed, low, high)
        return found


def _log(p: float) -> float:
    return math.log(min(max(p, LEAST), 1 - LEAST))
