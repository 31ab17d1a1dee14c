"""Compares exported stages with the torch network that they come from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from exports.bundle.errors import ExportError
from exports.stage_runner import StageRunner
from training.models.multi_exit import MultiExit, Normalize

TOLERANCE = 1e-3
BATCH_SIZES = (1, 7)
BATCHES = 20


def verify(
    runner: StageRunner,
    network: MultiExit,
    normalize: Normalize,
    images: NDArray[np.uint8],
    first: int = 1,
) -> float:
    """Compare the exported stages with torch on `images`, in batches of 1 and of 7.

    `first` is the number of the network's first exit in the bundle. Returns the largest absolute
    difference of a logit. Raises ExportError if it exceeds TOLERANCE or if an exit predicts another
    class.
    """
    largest = 0.0
    for size in BATCH_SIZES:
        sample = images[: size * BATCHES]
        with torch.no_grad():
            expected = torch.stack(network(normalize(torch.from_numpy(sample)))).numpy()
        actual = runner.logits(sample, batch_size=size)
        for k, (ours, theirs) in enumerate(zip(actual, expected, strict=True), first):
            difference = float(np.abs(ours - theirs).max())
            # `not <=` also refuses NaN.
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"exit {k} differs from torch by {difference:.2g} in batches of {size} "
                    f"(at most {TOLERANCE} is allowed); no bundle was written."
                )
            flipped = int((ours.argmax(-1) != theirs.argmax(-1)).sum())
            if flipped:
                raise ExportError(
                    f"exit {k} predicts another class than torch for {flipped} of "
                    f"{len(sample)} images in batches of {size}; no bundle was written."
                )
            largest = max(largest, difference)
    return largest
