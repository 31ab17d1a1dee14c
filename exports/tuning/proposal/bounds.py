"""Bounds that are set before a proposal is known, within which it is applied without being looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from exports.bundle.errors import TuningError
from exports.tuning.goal import INTERVAL_CONFIDENCE, Unit
from exports.tuning.proposal.effect import Effect

ACCURACY_DROP = "accuracy-drop"
COST_CHANGE = "cost-change"
FORM = f"{ACCURACY_DROP}=0.5,{COST_CHANGE}=0.2"


class OutOfBoundsError(TuningError):
    """A proposed policy is not applied, because its expected effect is not within the bounds."""

    exit_code = 3


@dataclass(frozen=True)
class Bounds:
    """`accuracy_drop`: most that the proposed policy may be below the ensemble of all exits, a share;
    `cost_change`: most that its mean cost may differ from that in force, in either direction, relative to it.
    None permits everything.

    The drop is not measured from the policy in force: repeated re-tunings could then descend by as much
    each time.
    """

    accuracy_drop: float | None = None
    cost_change: float | None = None


def parse_bounds(text: str) -> Bounds:
    """`accuracy-drop=0.5,cost-change=0.2`: percentage points, and a share. Raises TuningError."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in (ACCURACY_DROP, COST_CHANGE) or name in found or not 0 <= number < math.inf:
            raise TuningError(f"--within must be as in {FORM}, not {text}.")
        found[name] = number
    drop = found.get(ACCURACY_DROP)
    return Bounds(None if drop is None else drop / 100, found.get(COST_CHANGE))


def out_of_bounds(
    bounds: Bounds, effect: Effect, unit: Unit, *, representative: bool
) -> str | None:
    """Why a policy is not to be applied, None if it may be: the unfavourable ends of the intervals of
    `effect` must be within `bounds`, the cost in `unit`, and the samples `representative` of the traffic."""
    reasons: list[str] = []
    drop = effect.proposed.drop_interval(INTERVAL_CONFIDENCE)[1]
    if bounds.accuracy_drop is not None and drop > bounds.accuracy_drop:
        reasons.append(
            f"it may be {100 * drop:.2f} points below the ensemble, and {ACCURACY_DROP} is "
            f"{100 * bounds.accuracy_drop:g}"
        )
    low, high = effect.cost_changes[unit][1]
    furthest = low if abs(low) > abs(high) else high
    if bounds.cost_change is not None and abs(furthest) > bounds.cost_change:
        reasons.append(
            f"it may change the mean cost by {100 * furthest:+.1f} %, and {COST_CHANGE} is "
            f"{bounds.cost_change:g}"
        )
    if not representative:
        reasons.append("the labelled images are not a random selection")
    return f"The proposed policy is not applied: {'; '.join(reasons)}." if reasons else None
