"""Images as they arrive after a change on their way: uint8 [N, 32, 32, 3] -> the same.

`blur` and `contrast` are severity 2 of CIFAR-10-C's "Gaussian blur" and "contrast" (Hendrycks and
Dietterich 2019), `jpeg` is its severity 1.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Images = NDArray[np.uint8]


def jpeg(images: Images, quality: int = 80) -> Images:
    """Compressed as JPEG."""
    found = np.empty_like(images)
    for number, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found[number] = np.asarray(Image.open(file))
    return found


def contrast(images: Images, factor: float = 0.5) -> Images:
    """Colours drawn towards the image's mean."""
    values = images / 255
    mean = values.mean(axis=(1, 2), keepdims=True)
    return (np.clip((values - mean) * factor + mean, 0, 1) * 255).astype(np.uint8)


def blur(images: Images, sigma: float = 0.6) -> Images:
    """Gaussian blur of `sigma` pixels."""
    blurred = ndimage.gaussian_filter(images / 255, (0, sigma, sigma, 0))
    return (np.clip(blurred, 0, 1) * 255).astype(np.uint8)
