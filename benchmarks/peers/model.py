"""The network that every peer serves, in one onnxruntime session. Runs where only the peers are installed, so
it imports nothing of Offramp but the decoder of images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from offramp.images import ImageSpec, Pixels, decode
from offramp.onnx_runtime import make_int8_exact

GRAPH, ABOUT = "model.onnx", "model.json"
# The two networks of a cascade, folders in that of the model, and the threshold between them.
SMALL, LARGE, CONDITION = "small", "large", "cascade.json"
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Setup:
    """How a peer is started, from the variables PEER_*: the model's folder, the port, worker processes,
    threads in each, the maximum batch size, and the maximum wait of a request."""

    model: Path
    port: int
    workers: int
    threads: int
    batch: int
    wait_ms: float

    @classmethod
    def read(cls) -> Setup:
        """From the environment."""
        given = {name: os.environ[f"PEER_{name.upper()}"] for name in cls.__annotations__}
        return cls(
            Path(given["model"]),
            *(int(given[name]) for name in ("port", "workers", "threads", "batch")),
            float(given["wait_ms"]),
        )


class FullNetwork:
    """The network in `folder`, at full depth. Any thread may call it."""

    def __init__(self, folder: Path) -> None:
        """Open the session, with one thread as ours have, and run it once."""
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        self._spec = ImageSpec(about["height"], about["width"], about["resize"])
        self._temperature = np.float32(about["temperature"])
        self._exits = about["exits"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        make_int8_exact(options)
        self._session = ort.InferenceSession(
            folder / GRAPH, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self.predict([np.zeros((about["height"], about["width"], 3), np.uint8)])

    def decode(self, file: bytes) -> Pixels:
        """An image file's pixels, uint8 [H, W, 3], as our server decodes them."""
        return decode(file, self._spec, MAX_PIXELS)

    def predict(self, images: Sequence[Pixels]) -> list[dict[str, Any]]:
        """Each image's class, confidence (calibrated as ours) and exit, which is always the last."""
        (logits,) = self._session.run(None, {self._input: np.stack(images)})
        logits = logits / self._temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        best = logits.argmax(axis=1)
        confidence = powers.max(axis=1) / powers.sum(axis=1)
        return [
            {"index": index, "confidence": sure, "exit": self._exits}
            for index, sure in zip(best.tolist(), confidence.tolist(), strict=True)
        ]
