"""Gears of the tiny bundle: full depth, two exits, and the first exit alone."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from exports.bundle.gears.plan import Gear, GearPlan, write_gears
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest
from exports.tuning.search import NEVER, PolicyEvaluator
from tests.serving.tiny_bundle import EXITS

FULL_DEPTH = Policy(combine="running", thresholds=(NEVER, NEVER), max_exit=EXITS)
THRESHOLDS = ((NEVER, NEVER), (NEVER, 0.0), (0.0, 0.0))


def tiny_plan(manifest: Manifest) -> GearPlan:
    """A plan as a person might write it: costs and shares are the table's, accuracies are low."""
    return _plan(manifest.calibration.sha256, tuple(entry.macs for entry in manifest.exits))


@cache
def _plan(calibration_sha256: str, macs: tuple[int, ...]) -> GearPlan:
    gears = []
    for number, thresholds in enumerate(THRESHOLDS):
        deepest = EXITS - number
        gears.append(
            Gear(
                policy=Policy(combine="running", thresholds=thresholds, max_exit=EXITS),
                accuracy=3.0 - number,
                accuracy_interval=(2.0 - number, 4.0 - number),
                mean_macs=macs[deepest - 1],
                exit_shares=tuple(float(exit_ == deepest) for exit_ in range(1, EXITS + 1)),
            )
        )
    return GearPlan(
        format=1,
        calibration_sha256=calibration_sha256,
        samples=20,
        target="labels",
        gears=tuple(gears),
    )


def write_tiny_gears(bundle: Path) -> Path:
    """Write the plan into the tiny bundle in `bundle`, which has full depth as its policy then."""
    write_gears(bundle, tiny_plan(read_manifest(bundle)))
    (bundle / "policy.json").write_text(FULL_DEPTH.model_dump_json())
    return bundle


def full_depth_accuracy(bundle: Path) -> float:
    """The accuracy of full depth on the table of the bundle, in percent."""
    manifest = read_manifest(bundle)
    evaluator = PolicyEvaluator.from_table(load_table(bundle, manifest), manifest.scaling)
    return 100 * evaluator.evaluate(FULL_DEPTH).accuracy
