"""Running recorded images through all exits, since those that left early lack the logits of later ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exports.bundle.policy import Floats
from exports.bundle.reader import load_bundle
from exports.stage_runner import StageRunner
from exports.tuning.requests.recorded import Key, Place, read_image
from offramp.errors import ImageError
from offramp.images import ImageSpec, Pixels, decode
from offramp.progress import counting_bar

# The server that recorded them has its own limit.
MAX_PIXELS = 500_000_000
BATCH = 32


def run_recorded(bundle: Path, places: Mapping[Key, Place]) -> dict[Key, Floats]:
    """The logits float32 [K, C] of the images at `places`, of all exits of `bundle`, decoded as the server
    does. Images that are gone or cannot be decoded are left out. Raises BundleError, MissingExtraError."""
    found: dict[Key, Floats] = {}
    if not places:
        return found
    loaded = load_bundle(bundle)
    spec = loaded.manifest.input
    size = ImageSpec(spec.height, spec.width, spec.resize)
    runner = StageRunner(loaded.stages)
    ordered = sorted(places, key=lambda key: (places[key].records, places[key].offset))
    with counting_bar("running recorded images") as bar:
        task = bar.add_task("", total=len(ordered))
        for start in range(0, len(ordered), BATCH):
            keys = ordered[start : start + BATCH]
            pixels = {key: _pixels(places[key], size) for key in keys}
            decoded = {key: image for key, image in pixels.items() if image is not None}
            if decoded:
                logits = runner.logits(np.stack(list(decoded.values())), BATCH)
                found |= dict(zip(decoded, logits.swapaxes(0, 1), strict=True))
            bar.advance(task, len(keys))
    return found


def _pixels(place: Place, size: ImageSpec) -> Pixels | None:
    content = read_image(place)
    if content is None:
        return None
    try:
        return decode(content, size, MAX_PIXELS)
    except ImageError:
        return None
