"""The logits of a bundle for sets of images, kept on disk, so that an interrupted run can go on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from benchmarks.harness.corruptions import Images
from exports.bundle.policy import Floats
from exports.bundle.reader import Bundle
from exports.stage_runner import StageRunner
from offramp.files import replacing


class LogitsCache:
    """Runs images through a bundle, each set once: `folder` has a file for every set of images and network.

    A file's name has a hash of both, so a changed bundle or other images are run again.
    """

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._runner = StageRunner(bundle.stages)
        self._network = hashlib.sha256()
        for stage in bundle.stages:
            self._network.update(hashlib.sha256(stage).digest())

    def logits(self, images: Images) -> Floats:
        """Logits of every exit for `images`, uint8 [N, H, W, 3]: float32 [K, N, C]. Raises WriteError."""
        key = self._network.copy()
        key.update(repr(images.shape).encode())
        key.update(np.ascontiguousarray(images).data)
        file = self._folder / f"{key.hexdigest()[:32]}.npy"
        if file.exists():
            found: Floats = np.load(file)
            return found
        logits = self._runner.logits(images)
        with replacing(file) as part, part.open("wb") as stream:
            np.save(stream, logits)
        return logits
