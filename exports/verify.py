"""Running exported stages in onnxruntime, and holding them to the network they came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from exports.bundle import stage_input
from exports.errors import ExportError
from exports.policy import Floats
from offramp.errors import MissingExtraError
from training.models.multi_exit import MultiExit, Normalize

TOLERANCE = 1e-3
BATCH_SIZES = (1, 7)
BATCHES = 20


class StageRunner:
    """The stages of a bundle, one after the other, on the CPU in onnxruntime."""

    def __init__(self, stages: Sequence[bytes]) -> None:
        try:
            import onnxruntime as ort
        except ModuleNotFoundError:
            raise MissingExtraError("onnxruntime", "cpu") from None
        options = ort.SessionOptions()
        # A pool per session, each spinning, would fight for the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = [
            ort.InferenceSession(stage, options, providers=["CPUExecutionProvider"])
            for stage in stages
        ]

    def logits(self, images: NDArray[np.uint8], batch_size: int = 100) -> Floats:
        """Logits of every exit for uint8 images [N, H, W, 3]: float32 [K, N, C]."""
        parts = [
            self._batch(images[start : start + batch_size])
            for start in range(0, len(images), batch_size)
        ]
        return np.concatenate(parts, axis=1)

    def _batch(self, images: NDArray[np.uint8]) -> Floats:
        inputs, logits = images, []
        for k, session in enumerate(self._sessions, 1):
            *features, own = session.run(None, {stage_input(k): inputs})
            logits.append(own)
            inputs = features[0] if features else inputs
        return np.stack(logits)


def verify(
    runner: StageRunner, network: MultiExit, normalize: Normalize, images: NDArray[np.uint8]
) -> float:
    """Compare the exported stages with torch on `images`, in batches of 1 and of 7.

    Returns the largest absolute difference of a logit. Raises ExportError if it is over 1e-3 or if
    any exit's predicted class differs.
    """
    largest = 0.0
    for size in BATCH_SIZES:
        sample = images[: size * BATCHES]
        with torch.no_grad():
            expected = torch.stack(network(normalize(torch.from_numpy(sample)))).numpy()
        actual = runner.logits(sample, batch_size=size)
        for k in range(len(expected)):
            difference = float(np.abs(actual[k] - expected[k]).max())
            # Written so that a NaN is refused too.
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
