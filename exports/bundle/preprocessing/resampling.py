"""Resizing and the central crop of square images, as constant matrices.

A linear resize is y = R x for each side. Written as a matrix product it runs in every ONNX opset, while
`Resize` has the antialiasing of Pillow and torchvision only from opset 18 on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["bilinear", "bicubic"]
# Pillow's cubic; OpenCV and torch without antialiasing have -0.75.
CUBIC_A = -0.5
SUPPORT: dict[Interpolation, int] = {"bilinear": 1, "bicubic": 2}


def crop_start(resized: int, side: int) -> int:
    """The first of the `side` central pixels of `resized`, as in torchvision's CenterCrop."""
    return round((resized - side) / 2)


def resampling_matrix(
    source: int, resized: int, side: int, interpolation: Interpolation
) -> NDArray[np.float32]:
    """The matrix [side, source] that resizes `source` pixels to `resized` and keeps the central `side`.

    Antialiased as in Pillow's `Image.resize`: when the image shrinks, the filter is widened by the factor.
    """
    scale = source / resized
    widening = max(scale, 1.0)
    reach = SUPPORT[interpolation] * widening
    kernel = _KERNELS[interpolation]
    matrix = np.zeros((side, source))
    for row in range(side):
        centre = (row + crop_start(resized, side) + 0.5) * scale
        # Pillow's bounds, which leave out pixels whose centre is less than half a pixel inside.
        first = max(int(centre - reach + 0.5), 0)
        last = min(int(centre + reach + 0.5), source)
        weights = kernel((np.arange(first, last, dtype=np.float64) + 0.5 - centre) / widening)
        matrix[row, first:last] = weights / weights.sum()
    return matrix.astype(np.float32)


def linear(image: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """`image` [H, W, C] at `height` x `width`, bilinear without antialiasing: torch's `interpolate` with
    `align_corners=False`, and OpenCV's INTER_LINEAR."""
    rows, columns = (
        _neighbours(size, target)
        for size, target in ((image.shape[0], height), (image.shape[1], width))
    )
    first, second, weight = rows
    wide = image[first] * (1 - weight)[:, None, None] + image[second] * weight[:, None, None]
    first, second, weight = columns
    fitted = wide[:, first] * (1 - weight)[:, None] + wide[:, second] * weight[:, None]
    return fitted.astype(np.float32)


def _neighbours(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The two pixels of `source` on either side of each of `target`, and the weight of the second."""
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    first = np.floor(at).astype(np.int64)
    return first, np.minimum(first + 1, source - 1), (at - first).astype(np.float32)


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.maximum(1 - np.abs(x), 0)
    return weights


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys 1981, "Cubic Convolution Interpolation for Digital Image Processing"."""
    a, x = CUBIC_A, np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_KERNELS: dict[Interpolation, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
}
