"""How long a bundle's exits take on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exports.bundle.reader import load_bundle
from exports.stage_runner import StageRunner


def exit_milliseconds(bundle: Path) -> tuple[float, ...]:
    """Milliseconds to leave at each exit: stages 1..k on one image and one thread, as `serve` runs them.

    Decoding, queueing and HTTP are not included. Raises BundleError, MissingExtraError.
    """
    loaded = load_bundle(bundle)
    spec = loaded.manifest.input
    image = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width, 3), np.uint8)
    stages = StageRunner(loaded.stages, threads=1).stage_milliseconds(image)
    return tuple(np.cumsum(stages).tolist())
