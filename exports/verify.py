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
    runner: StageRunner, network: MultiExit, normalize: Normalize, images: NDArray[np.uint8]
) -> float:
    """Compare the exported stages with torch on `images`, in batches of 1 and of 7.

    Returns the largest absolute difference of a logit. Raises ExportError if it exceeds TOLERANCE or if
    an exit predicts another class.
    """
    largest = 0.0
    for size in BATCH_SIZES:
        sample = images[: size * BATCHES]
        with torch.no_grad():
            expected = torch.stack(network(normalize(torch.from_numpy(sample)))).numpy()
        actual = runner.logits(sample, batch_size=size)
        for k in range(len(expected)):
            difference = float(np.abs(actual[k] - expected[k]).max())
            # `not <=` also refuses NaN.
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"exit {k + 1} differs from torch by {difference:.2g} in batches of {size} "
                    f"(at most {TOLERANCE} is allowed); no bundle was written."
                )
            flipped = int((actual[k].argmax(-1) != expected[k].argmax(-1)).sum())
            if flipped:
                raise ExportError(
                    f"exit {k + 1} predicts another class than torch for {flipped} of "
                    f"{len(sample)} images in batches of {size}; no bundle was written."
                )
            largest = max(largest, difference)
    return largest
