"""Runs all stages of a bundle on whole batches in onnxruntime, without early exit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats
from exports.bundle.reader import IMAGE
from offramp.onnx_runtime import load_onnxruntime, session_options

TIMED_ROUNDS = 100


class StageRunner:
    """The stages of a bundle on the CPU, one after the other. The graphs say which take the image."""

    def __init__(self, stages: Sequence[bytes], threads: int = 0) -> None:
        """`threads` is the number of onnxruntime's threads per stage; 0 uses every core."""
        ort = load_onnxruntime()
        options = session_options()
        options.intra_op_num_threads = threads
        # Every session has its own thread pool, and spinning pools would compete for the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = [
            ort.InferenceSession(stage, options, providers=["CPUExecutionProvider"])
            for stage in stages
        ]
        self._inputs = [session.get_inputs()[0].name for session in self._sessions]

    def logits(self, images: NDArray[np.uint8], batch_size: int = 100) -> Floats:
        """Logits of every exit for uint8 images [N, H, W, 3]: float32 [K, N, C]."""
        parts = [np.stack(logits) for _, logits in self._batches(images, batch_size)]
        return np.concatenate(parts, axis=1)

    def inputs(self, images: NDArray[np.uint8], batch_size: int = 100) -> list[NDArray[Any]]:
        """The inputs of every stage: the images, or features [N, C, H, W]."""
        parts = [inputs for inputs, _ in self._batches(images, batch_size)]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def stage_milliseconds(
        self, image: NDArray[np.uint8], rounds: int = TIMED_ROUNDS
    ) -> tuple[float, ...]:
        """The time of each stage on one image, uint8 [1, H, W, 3]: the median in milliseconds of `rounds`
        runs through all stages, after `rounds` / 10 warm-up runs."""
        warm_up = rounds // 10
        stage_times: list[list[float]] = [[] for _ in self._sessions]
        for round_ in range(warm_up + rounds):
            features: NDArray[Any] = image
            for session, name, times in zip(self._sessions, self._inputs, stage_times, strict=True):
                inputs = image if name == IMAGE else features
                start = time.perf_counter()
                outputs = session.run(None, {name: inputs})
                if round_ >= warm_up:
                    times.append(1e3 * (time.perf_counter() - start))
                features = outputs[0]
        return tuple(statistics.median(times) for times in stage_times)

    def _batches(
        self, images: NDArray[np.uint8], size: int
    ) -> Iterator[tuple[list[NDArray[Any]], list[Floats]]]:
        """The inputs of every stage and the logits of every exit, for one batch at a time."""
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            inputs: list[NDArray[Any]] = []
            logits: list[Floats] = []
            features: list[NDArray[Any]] = []
            for session, name in zip(self._sessions, self._inputs, strict=True):
                inputs.append(batch if name == IMAGE else features[0])
                *features, exit_logits = session.run(None, {name: inputs[-1]})
                logits.append(exit_logits)
            yield inputs, logits
