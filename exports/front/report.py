"""What `offramp front` says of a bundle: its accuracy where there are labels, and its promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from exports.bundle.reader import load_table
from exports.front.calibration import CalibrationImages
from exports.front.plan import AgreementGoal
from exports.pipeline import Written
from exports.seen import warn_if_seen
from exports.tuning.certificate import divide
from exports.tuning.simulation import simulate


def accuracy_by_folders(
    bundle: Path,
    written: Written,
    calibration: CalibrationImages,
    network: Path,
    say: Callable[[str], None],
) -> str | None:
    """How often policy and network are right on the images that certify, as a sentence; None without
    labels. Warns if the network seems to know the images that calibrate."""
    labels = calibration.photos.labels
    if labels is None:
        return None
    table = load_table(bundle, written.manifest)
    right = float((table.logits[-1].argmax(axis=1) == labels).mean())
    remedy = (
        "add --calibrate with images that it was not trained on; the front is not trained again"
    )
    warn_if_seen(right, len(labels), network, remedy, say)
    _, unused = divide(len(labels))
    labels = labels[unused]
    table = table.take(unused)
    policy, scaling = written.choice.policy, written.manifest.scaling
    found = 100 * simulate(policy, table.logits, scaling).accuracy(labels)
    alone = 100 * float((table.logits[-1].argmax(axis=1) == labels).mean())
    return (
        f"accuracy by the folders' names on {len(labels):,} held-out images: {found:.2f} % by the default "
        f"policy, {alone:.2f} % by {network.name} alone."
    )


def promise(written: Written, network: Path, goal: AgreementGoal) -> str:
    """The certificate in the terms of the goal, or that there is none."""
    manifest = written.manifest
    which = (
        network.name if manifest.precision == "fp32" else f"{network.name} in {manifest.precision}"
    )
    what = f"the same answer as {which} in at least {100 * goal.agreement:g} % of cases"
    if written.choice.policy.certificate is None:
        return f"Not certified: {what}."
    return f"Certified: {what}, with {100 * goal.confidence:g} % confidence, on images like those given."
