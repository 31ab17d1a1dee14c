"""How deep samples will go and how many seconds that takes, from where samples of their policy left so
far."""

from __future__ import annotations

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from offramp.lru import LruDict
from serving.scheduling.costs import CostTable

# Samples that move a share most of the way to a new value: few enough to follow a change of traffic,
# too many for one batch to matter.
MEMORY_SAMPLES = 200
# Requests may set a threshold of their own; statistics are kept for this many policies.
MAX_POLICIES = 64


class Forecast:
    """Expected seconds of samples under one policy. Not thread-safe."""

    def __init__(self, policy: Policy, costs: CostTable, shares: tuple[float, ...]) -> None:
        """`shares` is the expected share of samples that leave at each exit, until some are observed."""
        # By stage; index 0 is unused.
        stages = range(1, policy.max_exit + 1)
        self._seconds = [0.0, *(costs.seconds_per_image(stage) for stage in stages)]
        self._fixed = policy.mode != "early_exit"
        self._depth = policy.max_exit
        self._leaving = _initial_shares(policy, shares)
        self._remaining: list[float] = []
        self._recompute()

    def remaining(self, stage: int) -> float:
        """Expected seconds of stages ahead of a sample that waits for stage `stage`."""
        return self._remaining[stage]

    def observe(self, stage: int, reached: int, left: int) -> None:
        """Update the forecast: `left` of `reached` samples left at exit `stage`."""
        if self._fixed or stage >= self._depth:
            return
        weight = reached / (reached + MEMORY_SAMPLES)
        self._leaving[stage] += weight * (left / reached - self._leaving[stage])
        self._recompute()

    def _recompute(self) -> None:
        deeper = 0.0
        # Index 0 is unused: decoding depends on the file.
        remaining = [0.0] * (self._depth + 1)
        for stage in range(self._depth, 0, -1):
            deeper = self._seconds[stage] + (1 - self._leaving[stage]) * deeper
            remaining[stage] = deeper
        self._remaining = remaining


class Forecasts:
    """The forecasts of one engine, by policy."""

    def __init__(self, manifest: Manifest, costs: CostTable) -> None:
        self._costs = costs
        self._shares = manifest.provenance.test_default.exit_shares
        self._by_policy: LruDict[Policy, Forecast] = LruDict(MAX_POLICIES)

    def of(self, policy: Policy, run_all_exits: bool = False) -> Forecast:
        """The forecast for samples under `policy`, or for samples that run every stage anyway."""
        if run_all_exits:
            policy = Policy(mode="exit", thresholds=policy.thresholds, max_exit=policy.exits)
        forecast = self._by_policy.get(policy)
        if forecast is None:
            forecast = Forecast(policy, self._costs, self._shares)
            self._by_policy.put(policy, forecast)
        return forecast


def _initial_shares(policy: Policy, shares: tuple[float, ...]) -> list[float]:
    """At index k, the share of the samples that reach exit k and leave there; index 0 is unused."""
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
