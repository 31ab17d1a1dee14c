"""Running a bundle's stages in onnxruntime, whole batches at a time, without torch or onnx."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats
from exports.bundle.reader import stage_input
from offramp.onnx_runtime import load_onnxruntime, session_options

TIMED_ROUNDS = 100


class StageRunner:
    """The stages of a bundle, one after the other, on the CPU in onnxruntime."""

    def __init__(self, stages: Sequence[bytes], threads: int = 0) -> None:
        """`threads` is onnxruntime's, per stage; 0 takes every core."""
        ort = load_onnxruntime()
        options = session_options()
        options.intra_op_num_threads = threads
        # A pool per session, each spinning, would fight for the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = [
            ort.InferenceSession(stage, options, providers=["CPUExecutionProvider"])
            for stage in stages
        ]

    def logits(self, images: NDArray[np.uint8], batch_size: int = 100) -> Floats:
        """Logits of every exit for uint8 images [N, H, W, 3]: float32 [K, N, C]."""
        parts = [np.stack(logits) for _, logits in self._batches(images, batch_size)]
        return np.concatenate(parts, axis=1)

    def inputs(self, images: NDArray[np.uint8], batch_size: int = 100) -> list[NDArray[Any]]:
        """What each stage takes: the images themselves, then features [N, C, H, W]."""
        parts = [inputs for inputs, _ in self._batches(images, batch_size)]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def stage_milliseconds(
        self, image: NDArray[np.uint8], rounds: int = TIMED_ROUNDS
    ) -> tuple[float, ...]:
        """How long each stage takes on one image, uint8 [1, H, W, 3]: the median of `rounds` runs
        through all stages, in milliseconds, after a tenth as many to warm up."""
        seen: list[list[float]] = [[] for _ in self._sessions]
        for turn in range(rounds + rounds // 10):
            inputs: NDArray[Any] = image
            for k, session in enumerate(self._sessions, 1):
                began = time.perf_counter()
                outputs = session.run(None, {stage_input(k): inputs})
                if turn >= rounds // 10:
                    seen[k - 1].append(1e3 * (time.perf_counter() - began))
                inputs = outputs[0]
        return tuple(statistics.median(times) for times in seen)

    def _batches(
        self, images: NDArray[np.uint8], size: int
    ) -> Iterator[tuple[list[NDArray[Any]], list[Floats]]]:
        """The inputs of every stage, and every exit's logits, a batch at a time."""
        for start in range(0, len(images), size):
            inputs: list[NDArray[Any]] = [images[start : start + size]]
            logits: list[Floats] = []
            for k, session in enumerate(self._sessions, 1):
                *features, own = session.run(None, {stage_input(k): inputs[-1]})
                inputs += features
                logits.append(own)
            yield inputs, logits
