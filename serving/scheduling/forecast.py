"""How deep samples will go, and what that will cost, from where samples of their policy left so far."""

from __future__ import annotations

from collections import OrderedDict

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from serving.scheduling.costs import CostTable

# Samples it takes to move a share most of the way to a new value: quick enough for a change of
# traffic, slow enough for a batch not to matter.
MEMORY_SAMPLES = 200
# Requests may carry a threshold of their own; the statistics of this many policies are kept.
MAX_POLICIES = 64


class Forecast:
    """Expected cost of samples under one policy. Not for several threads at once."""

    def __init__(self, policy: Policy, costs: CostTable, shares: tuple[float, ...]) -> None:
        """`shares` of samples that left at each exit stand until others are seen."""
        self._costs = costs
        self._fixed = policy.mode != "early_exit"
        self._depth = policy.max_exit
        self._leaving = _first_guess(policy, shares)
        self._remaining: list[float] = []
        self._add_up()

    def remaining(self, stage: int) -> float:
        """Seconds of stages that a sample waiting for stage `stage` has before it, on average."""
        return self._remaining[stage]

    def saw(self, stage: int, reached: int, left: int) -> None:
        """Learn that `left` of `reached` samples left at exit `stage`."""
        if self._fixed or stage >= self._depth:
            return
        weight = reached / (reached + MEMORY_SAMPLES)
        self._leaving[stage] += weight * (left / reached - self._leaving[stage])
        self._add_up()

    def _add_up(self) -> None:
        below = 0.0
        found = [0.0] * (self._depth + 1)
        for stage in range(self._depth, 0, -1):
            below = self._costs.each(stage) + (1 - self._leaving[stage]) * below
            found[stage] = below
        # Stage 0 is decoding, whose cost depends on the file: it is added by the sample.
        found[0] = below
        self._remaining = found


class Forecasts:
    """The forecasts of one engine, by policy."""

    def __init__(self, manifest: Manifest, costs: CostTable) -> None:
        self._costs = costs
        self._shares = manifest.provenance.test_default.exit_shares
        self._kept: OrderedDict[Policy, Forecast] = OrderedDict()

    def of(self, policy: Policy, to_the_end: bool = False) -> Forecast:
        """The forecast for samples under `policy`, or for samples that run every stage anyway."""
        if to_the_end:
            policy = Policy(mode="exit", thresholds=policy.thresholds, max_exit=policy.exits)
        found = self._kept.get(policy)
        if found is None:
            found = self._kept[policy] = Forecast(policy, self._costs, self._shares)
            if len(self._kept) > MAX_POLICIES:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(policy)
        return found


def _first_guess(policy: Policy, shares: tuple[float, ...]) -> list[float]:
    """The share of those who reach exit k that leave there, at index k; index 0 is unused."""
    leaving = [0.0]
    reached = 1.0
    for exit_, threshold in enumerate(policy.thresholds, 1):
        share = shares[exit_ - 1] if exit_ <= len(shares) else 0.0
        usual = min(share / reached, 1.0) if reached > 0 else 1.0
        reached -= share
        if policy.mode != "early_exit" or threshold > 1:
            leaving.append(0.0)
        else:
            leaving.append(1.0 if threshold == 0 else usual)
    leaving.append(0.0)
    leaving[policy.max_exit] = 1.0
    return leaving
