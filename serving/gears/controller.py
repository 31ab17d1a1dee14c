"""When to shift gears: a pure function of what was observed and of one dataclass of state.

Gear 0 is the policy in force, and every further gear is cheaper. Latency decides when to shift down, and
measured work decides how far, and when to shift up again. docs/guide/gears.md describes the rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Reason = Literal["wait", "p99", "calm"]

# How often `step` is called, and how far back answers count for the p99.
INTERVAL_S = 0.1
WINDOW_S = 5.0
# Fewer answers have no 99th percentile.
MIN_ANSWERS = 100
# Shares of the target: a predicted wait that counts as pressure if it lasts for two steps and the workers are
# short as well, the largest wait at which to shift up, and the largest p99 at which to shift up.
WAIT_SHARE = 0.75
CALM_WAIT_SHARE = 0.25
CALM_P99_SHARE = 0.8
# Shares of the workers: above OVERLOADED they are short; gears are chosen for at most DEMAND_LIMIT. Below
# BUSY answers are late for another reason than load, such as large photos, and a cheaper gear would not help.
OVERLOADED = 0.95
BUSY = 0.5
DEMAND_LIMIT = 0.85
# Shifts are at least this far apart. Down over any number of gears, up by one.
DOWN_S = 0.3
UP_S = 1.0
# Before a shift up, pressure must be gone and the arrivals must fit into a higher gear all the time for this
# long. It doubles, up to MAX_HOLD_S, whenever a shift up was followed by pressure within TRIAL_S.
HOLD_S = 5.0
MAX_HOLD_S = 320.0
TRIAL_S = 300.0
# Standard deviations by which a burst must be above the average to count at once.
DEVIATIONS = 3.0
# Time constants of moving averages: arrivals in bursts, arrivals, and work per image.
FAST_S = 0.5
SLOW_S = 3.0
WORK_S = 5.0
# After a shift images of the gear before are still being finished.
SETTLE_S = 0.5


@dataclass(frozen=True)
class Observation:
    """What happened since the observation before, at `now` seconds of any clock.

    `arrivals` are images that were offered, refused ones included. `finished` images took `work_s` seconds of
    workers in total. `workers` are those available to the model. `wait_s` is the predicted wait of a new
    image, `p99_s` the 99th percentile of the latency in the present gear, None with fewer than MIN_ANSWERS
    answers. `slowdown` is how much longer batches take than when the costs were measured.
    """

    now: float
    arrivals: float
    finished: float
    work_s: float
    workers: float
    wait_s: float
    p99_s: float | None = None
    slowdown: float = 1.0


@dataclass(frozen=True)
class State:
    """The controller's state at time `at`: the gear, and what the choice of the next one depends on.

    `waiting` is whether the predicted wait was above WAIT_SHARE. `fast` and `slow` are moving averages of
    arrivals a second, `work` and `done` those of the work and of the images finished. Since
    `calm_since` there was no pressure, and the arrivals would have fitted into the gear `goal` all the time.
    `lowered_at` and `raised_at` are when it last shifted, and `hold_s` how long it must be calm before a
    shift up. `reason` is that of the last shift.
    """

    at: float
    gear: int = 0
    waiting: bool = False
    fast: float = 0.0
    slow: float = 0.0
    work: float = 0.0
    done: float = 0.0
    calm_since: float = 0.0
    goal: int = 0
    lowered_at: float = -math.inf
    raised_at: float = -math.inf
    hold_s: float = HOLD_S
    reason: Reason = "calm"

    @property
    def shifted_at(self) -> float:
        """When the gear was last changed."""
        return max(self.lowered_at, self.raised_at)


def step(state: State, seen: Observation, costs: Sequence[float], target_s: float) -> State:
    """The state after `seen`; its gear is one of `costs`, whatever was observed.

    `costs` are the seconds of a worker for an image in each gear, descending, as measured at load. `target_s`
    is the p99 to hold.
    """
    elapsed = seen.now - state.at
    if elapsed <= 0:
        return state
    state = _averaged(state, seen, elapsed)
    reason = _pressure(state, seen, costs, target_s)
    state = replace(state, waiting=seen.wait_s > WAIT_SHARE * target_s)
    if reason is not None:
        return _lowered(state, seen, costs, target_s, reason, elapsed)
    goal = max(state.goal, _fitting(state, seen, costs))
    if goal >= state.gear:
        return replace(state, goal=0, calm_since=seen.now)
    state = replace(state, goal=goal)
    if _may_rise(state, seen, target_s):
        return _moved(
            replace(state, gear=state.gear - 1, raised_at=seen.now, reason="calm"),
            state,
            costs,
            seen,
        )
    return state


def demand(
    state: State, seen: Observation, costs: Sequence[float], gear: int, arrivals: float
) -> float:
    """The share of the workers that `arrivals` images a second would need in `gear`.

    An image's work is measured in the present gear. Gears differ by their stages alone, so the difference of
    their costs is added: decoding and HTTP stay.
    """
    image_s = state.work / state.done if state.done > 0 else costs[state.gear]
    image_s += seen.slowdown * (costs[gear] - costs[state.gear])
    return arrivals * max(image_s, 0.0) / max(seen.workers, 1e-9)


def _averaged(state: State, seen: Observation, elapsed: float) -> State:
    rate = seen.arrivals / elapsed
    fast, slow = (-math.expm1(-elapsed / span) for span in (FAST_S, SLOW_S))
    work, done = state.work, state.done
    if seen.now - state.shifted_at >= SETTLE_S:
        weight = math.exp(-elapsed / WORK_S)
        work, done = weight * work + seen.work_s, weight * done + seen.finished
    return replace(
        state,
        at=seen.now,
        fast=state.fast + fast * (rate - state.fast),
        slow=state.slow + slow * (rate - state.slow),
        work=work,
        done=done,
    )


def _burst(state: State, seen: Observation, elapsed: float) -> float:
    """Arrivals a second right now: a moving average, or what the last interval proves."""
    proven = (seen.arrivals - DEVIATIONS * math.sqrt(seen.arrivals)) / elapsed
    return max(state.fast, proven)


def _pressure(
    state: State, seen: Observation, costs: Sequence[float], target_s: float
) -> Reason | None:
    """Why the target is in danger, None if it is not."""
    if seen.wait_s > target_s:
        return "wait"
    lasting = state.waiting and seen.wait_s > WAIT_SHARE * target_s
    if lasting and demand(state, seen, costs, state.gear, state.fast) > OVERLOADED:
        return "wait"
    if seen.p99_s is not None and seen.p99_s > target_s:
        busy = demand(state, seen, costs, state.gear, state.slow) > BUSY
        return "p99" if busy else None
    return None


def _lowered(
    state: State,
    seen: Observation,
    costs: Sequence[float],
    target_s: float,
    reason: Reason,
    elapsed: float,
) -> State:
    pressed = replace(state, goal=0, calm_since=seen.now)
    if state.gear + 1 >= len(costs) or seen.now - state.shifted_at < DOWN_S:
        return pressed
    gear = state.gear + 1
    if seen.wait_s > target_s:
        burst = _burst(state, seen, elapsed)
        while gear + 1 < len(costs) and demand(state, seen, costs, gear, burst) > DEMAND_LIMIT:
            gear += 1
    hold_s = state.hold_s
    if state.lowered_at < state.raised_at and seen.now - state.raised_at < TRIAL_S:
        hold_s = min(2 * hold_s, MAX_HOLD_S)
    elif seen.now - state.shifted_at >= TRIAL_S:
        hold_s = HOLD_S
    lowered = replace(pressed, gear=gear, lowered_at=seen.now, hold_s=hold_s, reason=reason)
    return _moved(lowered, state, costs, seen)


def _fitting(state: State, seen: Observation, costs: Sequence[float]) -> int:
    """The dearest gear that the arrivals fit into, at the cheapest the present one."""
    arrivals = max(state.fast, state.slow)
    gear = 0
    while gear < state.gear and demand(state, seen, costs, gear, arrivals) > DEMAND_LIMIT:
        gear += 1
    return gear


def _may_rise(state: State, seen: Observation, target_s: float) -> bool:
    """Whether it has been calm for long enough, and is so now."""
    if seen.now - state.calm_since < state.hold_s or seen.now - state.shifted_at < UP_S:
        return False
    if seen.wait_s > CALM_WAIT_SHARE * target_s:
        return False
    return seen.p99_s is None or seen.p99_s <= CALM_P99_SHARE * target_s


def _moved(state: State, before: State, costs: Sequence[float], seen: Observation) -> State:
    """`state` with the work that its images would have taken in its gear."""
    change = seen.slowdown * (costs[state.gear] - costs[before.gear])
    return replace(state, work=max(state.work + state.done * change, 0.0))
