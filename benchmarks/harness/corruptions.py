"""Images as they arrive after a change on their way: uint8 [N, 32, 32, 3] -> the same.

`blur` and `contrast` are severity 2 of CIFAR-10-C's "Gaussian blur" and "contrast" (Hendrycks and
Dietterich 2019), `jpeg` is its severity 1.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

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


def noise(images: Images, deviation: float = 0.04, seed: int = 0) -> Images:
    """With Gaussian noise of `deviation`, as a share of the range of values."""
    rng = np.random.default_rng(seed)
    noisy = images / 255 + rng.normal(0, deviation, images.shape)
    return (np.clip(noisy, 0, 1) * 255).astype(np.uint8)


def brightness(images: Images, more: float = 0.1) -> Images:
    """Brighter: `more` is added to the largest of a pixel's three values, hue and saturation are kept."""
    values = images / 255
    value = values.max(axis=-1, keepdims=True)
    ratio = np.clip(value + more, 0, 1) / np.maximum(value, 1 / 255)
    return (np.clip(values * ratio, 0, 1) * 255).astype(np.uint8)


# Five severities of each kind, those of CIFAR-10-C (Hendrycks and Dietterich 2019).
SEVERITIES: dict[str, tuple[Callable[[Images], Images], ...]] = {
    "JPEG": tuple(partial(jpeg, quality=quality) for quality in (80, 65, 58, 50, 40)),
    "blur": tuple(partial(blur, sigma=sigma) for sigma in (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": tuple(partial(contrast, factor=factor) for factor in (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": tuple(partial(brightness, more=more) for more in (0.05, 0.1, 0.15, 0.2, 0.3)),
    "noise": tuple(partial(noise, deviation=share) for share in (0.04, 0.06, 0.08, 0.09, 0.1)),
}
