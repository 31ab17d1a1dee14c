"""Means and deviations that clients use, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from exports.bundle.preprocessing.spec import Triple

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
# In levels of 255 at black and at white, beyond which two normalisations differ.
SAME_LEVELS = 2.0

Coefficients = NDArray[np.float64]
_IMAGENET_MEAN = np.array(IMAGENET_MEAN) * 255
_IMAGENET_STD = np.array(IMAGENET_STD) * 255
_NONE, _ONES = np.zeros(3), np.ones(3)
# A channel x in 0..255 becomes (x - mean) / deviation.
KNOWN: dict[str, tuple[Coefficients, Coefficients]] = {
    "0 to 255": (_NONE, _ONES),
    "0 to 1": (_NONE, 255 * _ONES),
    "-1 to 1": (127.5 * _ONES, 127.5 * _ONES),
    "ImageNet's normalisation": (_IMAGENET_MEAN, _IMAGENET_STD),
    "0 to 255 less ImageNet's mean": (_IMAGENET_MEAN, _ONES),
    "ImageNet's normalisation without the division by 255": (
        np.array(IMAGENET_MEAN),
        np.array(IMAGENET_STD),
    ),
}


def is_same(
    mean: Coefficients, std: Coefficients, other_mean: Coefficients, other_std: Coefficients
) -> bool:
    """Whether two normalisations, each [3] of pixels in 0..255, give the same values but for rounding."""
    return all(
        bool((np.abs(((x - mean) / std) * other_std + other_mean - x) <= SAME_LEVELS).all())
        for x in (0.0, 255.0)
    )


def describe(mean: Coefficients, std: Coefficients) -> str:
    """A normalisation in words."""
    for name, (known_mean, known_std) in KNOWN.items():
        if is_same(mean, std, known_mean, known_std):
            return name
    return f"(x / 255 - {_numbers(mean / 255)}) / {_numbers(std / 255)}"


def difference(
    mean: Coefficients, std: Coefficients, expected_mean: Coefficients, expected_std: Coefficients
) -> str | None:
    """How the normalisation by `mean` and `std` differs from what is expected; None if it does not."""
    if is_same(mean, std, expected_mean, expected_std):
        return None
    found = describe(mean, std)
    if found not in KNOWN:
        for name, (wrong_mean, wrong_std) in _mistakes(expected_mean, expected_std):
            if is_same(mean, std, wrong_mean, wrong_std):
                return name
    return f"values are {found} where {describe(expected_mean, expected_std)} is expected"


def _mistakes(
    mean: Coefficients, std: Coefficients
) -> Iterator[tuple[str, tuple[Coefficients, Coefficients]]]:
    yield "mean and deviation are in the reverse order of channels", (mean[::-1], std[::-1])
    yield "the mean is not subtracted", (_NONE, std)
    yield "the values are not divided by the deviation", (mean, 255 * _ONES)


def _numbers(values: Coefficients) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
