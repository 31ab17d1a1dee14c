"""A bundle with another calibration table, as its command would have written it for these images."""

from __future__ import annotations

from pathlib import Path

from benchmarks.grocery.policies import TARGETS, Aim, Chosen, choose
from exports.bundle.manifest import CALIBRATION, MANIFEST, POLICY, CalibrationEntry
from exports.bundle.reader import Bundle, Table, load_bundle, sha256, write_table
from exports.bundle.writing import policy_json
from offramp.files import new_directory


def write_tuned(bundle: Bundle, table: Table, aim: Aim, place: Path) -> Chosen:
    """Write `bundle` into the new directory `place` with the calibration `table`, and what is chosen on it
    for `aim`."""
    manifest = bundle.manifest
    costs = [entry.macs for entry in manifest.exits]
    with new_directory(place) as folder:
        for entry, stage in zip(manifest.exits, bundle.stages, strict=True):
            (folder / entry.file).write_bytes(stage)
        write_table(folder / CALIBRATION, table, "held_out")
        digest = sha256((folder / CALIBRATION).read_bytes())
        chosen = choose(table, costs, aim, digest)
        exits = tuple(
            entry.model_copy(update={"temperature": own, "running_temperature": running})
            for entry, own, running in zip(
                manifest.exits,
                chosen.scaling.temperatures,
                chosen.scaling.running_temperatures,
                strict=True,
            )
        )
        calibration = CalibrationEntry(
            file=CALIBRATION,
            sha256=digest,
            samples=len(table.labels),
            split="held_out",
            target=TARGETS[aim],
        )
        changed = manifest.model_copy(
            update={
                "exits": exits,
                "ensemble_weights": chosen.scaling.weights,
                "calibration": calibration,
            }
        )
        (folder / MANIFEST).write_text(changed.model_dump_json(indent=2) + "\n", "utf-8")
        (folder / POLICY).write_bytes(policy_json(chosen.policy))
        load_bundle(folder)
    return chosen
