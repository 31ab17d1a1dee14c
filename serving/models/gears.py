"""The gears that a model may use: its policy in force, and the cheaper ones of its bundle's plan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exports.bundle.errors import BundleError, TuningError
from exports.bundle.gears.plan import Gear, GearPlan, read_gears
from exports.bundle.manifest import GEARS, Manifest
from exports.bundle.policy import Policy
from exports.tuning.gears.choose import verify_gears
from exports.tuning.preview import PolicyPreview

log = logging.getLogger("offramp.models")


class AccuracyFloorError(BundleError):
    """The policy in force does not keep the accuracy floor."""


@dataclass
class GearBox:
    """The `gears` of one model under one policy in force, and the `current` one of them.

    Gear 0 is the policy in force; the others come from `plan`, each cheaper than the one before, and all keep
    the floor. `verified` is what `verify_gears` says of the plan. Used on the event loop only.
    """

    plan: GearPlan
    verified: bool
    gears: tuple[Gear, ...]
    current: int = 0

    @property
    def policy(self) -> Policy:
        """The policy of the current gear."""
        return self.gears[self.current].policy


class GearReader:
    """Makes the gears of bundles, all of an accuracy of at least `floor` percent by the lower end of their
    interval; None without a floor. Methods take about as long as a tuning."""

    def __init__(self, floor: float | None) -> None:
        self._floor = floor

    def read(
        self, path: Path, manifest: Manifest, policy: Policy, table: PolicyPreview
    ) -> GearBox | None:
        """The gears of the bundle in `path` with `policy` in force; `table` is its calibration table.

        Raises BundleError if the bundle has none, or its table contradicts them; AccuracyFloorError if
        `policy` is below the floor.
        """
        if self._floor is None:
            return None
        plan = read_gears(path, manifest)
        if plan is None:
            raise BundleError(
                f"{path} has no {GEARS}, which a latency target needs; "
                f"run `offramp tune {path} --gears`."
            )
        verified = verified_gears(plan, manifest, table)
        if not verified:
            log.warning("%s: this version would choose other gears from the table", manifest.name)
        return _gear_box(policy, plan, verified, table, self._floor)

    def under(self, policy: Policy, box: GearBox | None, table: PolicyPreview) -> GearBox | None:
        """The gears of the plan of `box` with another `policy` in force; raises AccuracyFloorError, and
        BundleError if the table is damaged."""
        if self._floor is None or box is None:
            return None
        return _gear_box(policy, box.plan, box.verified, table, self._floor)

    def raised(
        self, policy: Policy, before: Policy, box: GearBox | None, table: PolicyPreview
    ) -> GearBox | None:
        """The gears of the plan of `box` with `policy` in force, which is `before` with higher thresholds.

        Gears of the same measure and combination have the raised thresholds where theirs are lower; the
        others are left out. All but `policy` keep the floor. Raises BundleError if the table is damaged.
        """
        if self._floor is None or box is None:
            return None
        gears: list[Gear] = []
        for one in box.plan.gears:
            gear = _raised(one, policy, before, table)
            # With the same thresholds raised, two may have become alike.
            if gear is not None and (not gears or gear.mean_macs < gears[-1].mean_macs):
                gears.append(gear)
        return _boxed(_measured(policy, table), gears, box.plan, box.verified, self._floor)

    def has_changed(self, path: Path, manifest: Manifest, box: GearBox | None) -> bool:
        """Whether the plan in the bundle in `path` is no longer that of `box`; raises BundleError."""
        return box is not None and read_gears(path, manifest) != box.plan


def verified_gears(plan: GearPlan, manifest: Manifest, table: PolicyPreview) -> bool:
    """What `verify_gears` says of `plan`, False for a table that cannot be tuned on; raises BundleError."""
    try:
        return verify_gears(plan, table.tuning_data, manifest)
    except TuningError:
        return False  # one sample cannot be divided


def _gear_box(
    policy: Policy, plan: GearPlan, verified: bool, table: PolicyPreview, floor: float
) -> GearBox:
    top = _measured(policy, table)
    least = top.accuracy_interval[0]
    if least < floor:
        raise AccuracyFloorError(
            f"The policy's accuracy on the calibration table is {top.accuracy:.2f} %, at least "
            f"{least:.2f} %, which is below the accuracy floor of {floor:g} %."
        )
    return _boxed(top, plan.gears, plan, verified, floor)


def _measured(policy: Policy, table: PolicyPreview) -> Gear:
    """`policy` as a gear, with its results on `table`."""
    found = table.preview(policy)
    least, most = (
        round(min(max(found.accuracy + found.drop - drop, 0.0), 100.0), 4)
        for drop in reversed(found.drop_interval)
    )
    return Gear(
        policy=policy,
        accuracy=found.accuracy,
        # Rounding must not put the estimate outside.
        accuracy_interval=(min(least, found.accuracy), max(most, found.accuracy)),
        mean_macs=found.mean_macs,
        exit_shares=tuple(found.exit_shares),
    )


def _raised(gear: Gear, policy: Policy, before: Policy, table: PolicyPreview) -> Gear | None:
    """`gear` with the thresholds of `policy` that are higher than in `before`; None if its thresholds are of
    another measure or combination."""
    own = gear.policy
    if (own.measure, own.combine) != (policy.measure, policy.combine):
        return None
    thresholds = tuple(
        max(threshold, now) if now > then else threshold
        for threshold, now, then in zip(
            own.thresholds, policy.thresholds, before.thresholds, strict=True
        )
    )
    return _measured(own.model_copy(update={"thresholds": thresholds}), table)


def _boxed(
    top: Gear, gears: Sequence[Gear], plan: GearPlan, verified: bool, floor: float
) -> GearBox:
    """`top` and those of `gears` that are cheaper and keep the floor."""
    cheaper = tuple(
        gear.model_copy(update={"policy": _with_rejection(gear.policy, top.policy)})
        for gear in gears
        if gear.mean_macs < top.mean_macs
        and gear.accuracy <= top.accuracy
        and gear.accuracy_interval[0] >= floor
    )
    return GearBox(plan, verified, (top, *cheaper))


def _with_rejection(policy: Policy, in_force: Policy) -> Policy:
    return policy.model_copy(update={"reject_below": in_force.reject_below})
