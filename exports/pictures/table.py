"""The calibration table of a bundle, as the pictures use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats, running_ensemble
from exports.bundle.reader import Table, load_table, read_manifest
from offramp.errors import PictureError


@dataclass(frozen=True)
class BundleTable:
    """The manifest and the calibration table of a bundle; its networks are not read."""

    manifest: Manifest
    table: Table

    @property
    def exits(self) -> int:
        """The number of exits, K."""
        return len(self.table.logits)

    @property
    def split(self) -> str:
        """The table's split with its size, as in "held-out split, 5,000 samples"."""
        name = self.manifest.calibration.split.replace("_", "-")
        return f"{name} split, {len(self.table.labels):,} samples"

    @property
    def source(self) -> str:
        """The bundle and the hash of its table, for the metadata of a picture."""
        manifest = self.manifest
        return f"{manifest.name} {manifest.version}, table {manifest.calibration.sha256[:12]}"

    def running(self, exit_: int) -> Floats:
        """Logits [N, C] of the ensemble of exits 1..`exit_`."""
        return running_ensemble(list(self.table.logits), exit_, self.manifest.ensemble_weights)

    def correct(self, logits: Floats) -> NDArray[np.bool_]:
        """For which of the N samples `logits` [N, C] give the correct class."""
        correct: NDArray[np.bool_] = logits.argmax(axis=-1) == self.table.labels
        return correct


def open_table(bundle: Path) -> BundleTable:
    """Read manifest and calibration table of `bundle`; raises BundleError or PictureError."""
    if (bundle / "checkpoint.json").is_file():
        raise PictureError(
            f"{bundle} is a run, not a bundle: export it first with "
            f"`offramp export {bundle} -o BUNDLE`."
        )
    manifest = read_manifest(bundle)
    return BundleTable(manifest, load_table(bundle, manifest))
