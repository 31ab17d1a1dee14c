"""Running a bundle's stages in onnxruntime, whole batches at a time, without torch or onnx."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exports.bundle import stage_input
from exports.policy import Floats
from offramp.errors import MissingExtraError


class StageRunner:
    """The stages of a bundle, one after the other, on the CPU in onnxruntime."""

    def __init__(self, stages: Sequence[bytes], threads: int = 0) -> None:
        """`threads` is onnxruntime's, per stage; 0 takes every core."""
        try:
            import onnxruntime as ort
        except ModuleNotFoundError:
            raise MissingExtraError("onnxruntime", "cpu") from None
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
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
