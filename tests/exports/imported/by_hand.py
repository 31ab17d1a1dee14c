"""What a network returns for images that Pillow and numpy prepare, as one does it without Offramp."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from tests.exports.imported.classifiers import IMAGENET, ZERO_ONE
from tests.exports.imported.conftest import SMALL_SIDE, Given

RESIZED = 24


def resized(pixels: NDArray[np.uint8], side: int, filter_: Image.Resampling) -> NDArray[np.float32]:
    """Pixels [H, W, 3] at `side`, without rounding: float32 [side, side, 3]."""
    channels = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize((side, side), filter_))
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack(channels, axis=2)


def normalised(
    pixels: NDArray[Any], normal: tuple[Sequence[float], Sequence[float]]
) -> NDArray[Any]:
    mean, std = normal
    return ((pixels / 255.0 - np.array(mean)) / np.array(std)).astype(np.float32)


def small_logits(given: Given, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB planes, resized and cropped: [N, 4]."""
    start = (RESIZED - SMALL_SIDE) // 2
    kept = slice(start, start + SMALL_SIDE)
    inputs = [
        normalised(resized(p, RESIZED, Image.Resampling.BILINEAR)[kept, kept], IMAGENET)
        for p in images
    ]
    return run(given.small, np.stack(inputs).transpose(0, 3, 1, 2))


def large_logits(given: Given, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels last, log-probabilities in the order of the bundle's labels: [N, 4]."""
    probabilities = run(given.large, normalised(images, ZERO_ONE))
    # OTHER_ORDER is background, red, grey, blue, green; the bundle has red, grey, blue, green.
    return np.log(np.maximum(probabilities[:, 1:], 1e-7))


def run(path: Path, inputs: NDArray[Any]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    values: NDArray[np.float32] = session.run(None, {"pixels": np.ascontiguousarray(inputs)})[0]
    return values
