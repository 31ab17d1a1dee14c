"""The gears of a bundle: policies along the tuned frontier, each judged on samples that it was not chosen on.

A plan is verified by choosing it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from exports.bundle.errors import BundleError
from exports.bundle.gears.plan import Gear, GearPlan
from exports.bundle.manifest import Manifest
from exports.tuning.goal import INTERVAL_CONFIDENCE, TuningData
from exports.tuning.path import Candidate
from exports.tuning.search import never_early

# A gear costs at least this share less than the one before: less would not be worth a shift.
MIN_STEP = 0.08
MAX_CHOSEN = 24
DECIMALS = 4
# Processors may round measures differently, which moves samples at a threshold to another exit.
SHARE_TOLERANCE = 0.005
ACCURACY_TOLERANCE = 0.05


def plan_gears(data: TuningData, manifest: Manifest) -> GearPlan:
    """The gears of a bundle, chosen on `data`, its calibration table. Takes about as long as a tuning.

    The first is the most accurate policy of the cross-validated path, usually full depth. Each further one is
    the most accurate that costs at least MIN_STEP less than the one before.
    """
    macs = [float(entry.macs) for entry in manifest.exits]
    full = never_early(len(macs))
    candidates = [Candidate(full, data.whole.evaluate(full)), *data.candidates(macs)]
    costs = [candidate.stats.mean_cost(macs) for candidate in candidates]
    ratio = min(1 - MIN_STEP, (min(costs) / max(costs)) ** (1 / MAX_CHOSEN))
    chosen: list[int] = []
    affordable = list(range(len(costs)))
    while affordable:
        best = max(affordable, key=lambda place: (candidates[place].stats.accuracy, -costs[place]))
        chosen.append(best)
        affordable = [place for place, cost in enumerate(costs) if cost <= ratio * costs[best]]
    return GearPlan(
        format=1,
        calibration_sha256=manifest.calibration.sha256,
        samples=data.whole.samples,
        target=data.target,
        gears=tuple(_gear(candidates[place], macs, data) for place in chosen),
    )


def verify_gears(plan: GearPlan, data: TuningData, manifest: Manifest) -> bool:
    """Whether `plan` is what `plan_gears` chooses on `data`, the table of the bundle; False if another
    version or processor chose it, or a person.

    Raises BundleError if the table contradicts it: a gear costs or leaves otherwise, or the lower end of its
    accuracy is above its accuracy on the very samples that it was chosen on.
    """
    macs = [float(entry.macs) for entry in manifest.exits]
    for number, gear in enumerate(plan.gears):
        stats = data.whole.evaluate(gear.policy)
        off = max(abs(a - b) for a, b in zip(gear.exit_shares, stats.exit_shares, strict=True))
        cost = abs(gear.mean_macs - stats.mean_cost(macs)) / macs[-1]
        promised = gear.accuracy_interval[0] - 100 * stats.accuracy
        if max(off, cost) > SHARE_TOLERANCE or promised > ACCURACY_TOLERANCE:
            raise BundleError(
                f"Gear {number} does not follow from the bundle's calibration table; "
                "run `offramp tune --gears` again."
            )
    return plan == plan_gears(data, manifest)


def _gear(candidate: Candidate, macs: Sequence[float], data: TuningData) -> Gear:
    stats = candidate.stats
    exits = data.whole.evaluate(candidate.policy)
    low, high = stats.drop_interval(INTERVAL_CONFIDENCE)
    ensemble = float(data.whole.ensemble_correct.mean())
    accuracy = _percent(ensemble - stats.drop)
    return Gear(
        policy=candidate.policy,
        accuracy=accuracy,
        accuracy_interval=(
            min(_percent(ensemble - high), accuracy),
            max(_percent(ensemble - low), accuracy),
        ),
        mean_macs=round(exits.mean_cost(macs), 1),
        exit_shares=tuple(round(share, 6) for share in exits.exit_shares),
    )


def _percent(share: float) -> float:
    return round(min(max(100 * share, 0.0), 100.0), DECIMALS)
