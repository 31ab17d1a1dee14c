"""The logits of a bundle on images, kept on disk so that no network sees an image twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.grocery.images import ImageFiles
from exports.bundle.policy import Floats
from exports.bundle.reader import Bundle, sha256
from exports.stage_runner import StageRunner
from offramp.files import replacing

BATCH_IMAGES = 32
KEY_LETTERS = 16


def logits_of(bundle: Bundle, images: ImageFiles, directory: Path) -> Floats:
    """Logits of every exit, float32 [K, N, C], on one thread. `directory` keeps those of each network, which
    bundles may share."""
    directory.mkdir(parents=True, exist_ok=True)
    return np.concatenate([_of_network(stages, images, directory) for stages in networks(bundle)])


def networks(bundle: Bundle) -> list[list[bytes]]:
    """The stages of `bundle`, a list for each network that begins at the image."""
    found: list[list[bytes]] = []
    for entry, stage in zip(bundle.manifest.exits, bundle.stages, strict=True):
        if entry.input == "image":
            found.append([])
        found[-1].append(stage)
    return found


def _of_network(stages: list[bytes], images: ImageFiles, directory: Path) -> Floats:
    files = "".join(f"{file}\n" for file in images.files)
    key = sha256(b"".join([*stages, files.encode()]))[:KEY_LETTERS]
    kept = directory / f"{images.name}-{key}.npy"
    if kept.is_file():
        logits: Floats = np.load(kept)
        return logits
    print(f"{len(images.files)} images of {images.name}, {len(stages)} stages", flush=True)
    logits = StageRunner(stages, threads=1).logits(images.pixels, BATCH_IMAGES)
    with replacing(kept) as part, part.open("wb") as file:
        np.save(file, logits)
    return logits
