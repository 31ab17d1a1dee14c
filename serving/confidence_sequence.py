"""A confidence sequence of a probability: an interval that is valid at every look.

For k events in n trials, and with the Beta function B, the mixture likelihood ratio with Jeffreys' prior

    M_n(p) = B(k + 1/2, n - k + 1/2) / (B(1/2, 1/2) p^k (1 - p)^(n - k))

is a martingale under the true p and starts at 1 (Robbins 1970, Ann. Math. Statist. 41, 1397; Howard et al.
2021, arXiv 1810.08240; as a bet on each trial: Waudby-Smith and Ramdas 2024, arXiv 2010.09686). By Ville's
inequality it ever exceeds 1 / level with a probability of at most `level`. The interval is every p where it
does not.

"The interval is below q" depends on k only by being small. So if every trial has the event with a probability
of at least q, which may vary and depend on the trials before, that happens with a probability of at most
`level`; likewise "the interval is above q".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LOG_BETA_HALF = math.log(math.pi)  # of B(1/2, 1/2)
BISECTIONS = 40


@dataclass(slots=True)
class BernoulliSequence:
    """`events` among `count` trials; `level` is the probability that p is ever outside the interval."""

    level: float
    count: int = 0
    events: int = 0

    def add(self, event: bool) -> None:
        """Count one trial."""
        self.count += 1
        self.events += event

    @property
    def rate(self) -> float:
        """The share of trials with the event, 0 without trials."""
        return self.events / self.count if self.count else 0.0

    def is_above(self, p: float) -> bool:
        """Whether the whole interval is above `p`, in [0, 1)."""
        return self.count > 0 and self.rate > p and self._excludes(p)

    def is_below(self, p: float) -> bool:
        """Whether the whole interval is below `p`, in (0, 1]."""
        return self.count > 0 and self.rate < p and self._excludes(p)

    def interval(self) -> tuple[float, float]:
        """The interval, within [0, 1]; all of it without trials."""
        if self.count == 0:
            return 0.0, 1.0
        return self._end(0.0), self._end(1.0)

    def _end(self, outer: float) -> float:
        """The end of the interval between the rate, which is in it, and `outer`."""
        if not self._excludes(outer):
            return outer
        inner = self.rate
        for _ in range(BISECTIONS):
            middle = (inner + outer) / 2
            if self._excludes(middle):
                outer = middle
            else:
                inner = middle
        return outer

    def _excludes(self, p: float) -> bool:
        others = self.count - self.events
        if (p <= 0 and self.events) or (p >= 1 and others):
            return True
        likelihood = (self.events * math.log(p) if self.events else 0.0) + (
            others * math.log1p(-p) if others else 0.0
        )
        mixture = (
            math.lgamma(self.events + 0.5)
            + math.lgamma(others + 0.5)
            - math.lgamma(self.count + 1)
            - LOG_BETA_HALF
        )
        return mixture - likelihood >= -math.log(self.level)
