"""How far a client's own tensor is from what a network sees, and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle.errors import PreprocessingError
from exports.bundle.policy import Floats
from exports.bundle.preprocessing import normal
from exports.bundle.preprocessing.inputs import StageInput
from exports.bundle.preprocessing.variants import OTHER_STEPS, Variant
from exports.options import Layout

COLOURS = 3
# In levels of 255. Rounded pixels differ by half a level, filters of another library by a few in places.
MAX_MEAN_LEVELS = 0.5
# A less likely explanation must leave less than this share of the difference, and this much less.
BETTER_SHARE, BETTER_LEVELS = 0.8, 0.1
# A fit that leaves more than this is of another image.
MAX_EXPLAINED_LEVELS = 25.0
MIN_VARIANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """`largest` and `mean` are differences of the array's values from the expected ones, None if the sizes
    differ; `levels` is the mean in levels of 255 with the `causes` undone. `agrees` is whether the array is
    as expected but for rounding and the steps of resizing."""

    causes: tuple[str, ...]
    largest: float | None
    mean: float | None
    levels: float | None
    agrees: bool

    def lines(self) -> list[str]:
        """The comparison in sentences."""
        lines = []
        if self.largest is not None:
            lines.append(
                f"values differ by {self.mean:.4g} on average and {self.largest:.4g} at most"
            )
        if self.causes:
            cause = "most likely cause" if len(self.causes) == 1 else "most likely causes"
            lines.append(f"{cause}: {'; '.join(self.causes)}")
            if self.levels is not None:
                lines.append(f"without that: {self.levels:.2g} of 255 levels on average")
        but = " but for that" if self.agrees and self.causes else ""
        is_ = "is" if self.agrees else "is not"
        return [*lines, f"this {is_} what the network takes{but}"]


def compare(
    array: NDArray[Any], layout: Layout | None, stage: StageInput, variants: Iterable[Variant]
) -> Comparison:
    """Compare `array`, an image or a batch of one, with what `stage` takes, the first of `variants`.

    `layout` is the array's; by default the axis of three decides. Raises PreprocessingError if the array is
    no image.
    """
    values, found = _pixels_last(array, layout, stage.layout)
    causes = []
    if found != stage.layout:
        causes.append(f"{_AXES[found]} where {stage.layout.upper()} is expected")
    candidates = iter(variants)
    expected = next(candidates)
    if values.shape != expected.pixels.shape:
        height, width, _ = expected.pixels.shape
        causes.append(
            f"it has {values.shape[0]} x {values.shape[1]} pixels where {height} x {width} are expected"
        )
        return Comparison(tuple(causes), None, None, None, False)
    if stage.channels == "bgr":
        values = values[..., ::-1]
    mean, std = np.array(stage.mean), np.array(stage.std)
    differences = np.abs(values - (expected.pixels - mean) / std)
    largest, average = float(differences.max()), float(differences.mean())
    if np.ptp(values) == 0:
        causes.append("all values are the same")
        return Comparison(tuple(causes), largest, average, None, False)
    best = _explain(values, itertools.chain([expected], candidates))
    if best.levels > MAX_EXPLAINED_LEVELS:
        causes.append("it is another image, or made in a way that is not known")
        return Comparison(tuple(causes), largest, average, None, False)
    if best.reversed:
        other = "BGR" if stage.channels == "rgb" else "RGB"
        causes.append(
            f"channels are in the order {other} where {stage.channels.upper()} is expected"
        )
    unlike = normal.difference(best.mean, best.std, mean, std)
    causes += [unlike] if unlike else []
    causes += best.causes
    close = float((differences * std).mean()) <= MAX_MEAN_LEVELS
    explained = best.resized == OTHER_STEPS and best.levels <= MAX_MEAN_LEVELS
    agrees = not causes and (close or explained)
    if best.resized and (best.resized != OTHER_STEPS or not causes):
        causes.append(best.resized)
    return Comparison(tuple(causes), largest, average, best.levels, agrees)


_AXES: dict[Layout, str] = {
    "nhwc": "axes are in the order height, width, channels (NHWC)",
    "nchw": "axes are in the order channels, height, width (NCHW)",
}


def _pixels_last(
    array: NDArray[Any], layout: Layout | None, expected: Layout
) -> tuple[NDArray[np.float64], Layout]:
    """One image as [H, W, 3], and the layout it had."""
    form = f"the array has the shape {list(array.shape)}"
    if array.dtype.kind not in "fiu":
        raise PreprocessingError(f"the array holds {array.dtype}, not numbers.")
    if array.ndim == 4 and len(array) != 1:
        raise PreprocessingError(f"{form}, a batch of {len(array)}; one image is compared.")
    image = array[0] if array.ndim == 4 else array
    if image.ndim != 3 or not image.size:
        raise PreprocessingError(f"{form}, which is no image of three colours.")
    possible: list[Layout] = []
    if image.shape[0] == COLOURS:
        possible.append("nchw")
    if image.shape[2] == COLOURS:
        possible.append("nhwc")
    if not possible or layout not in (None, *possible):
        kind = "no image of three colours" if layout is None else f"not {layout.upper()}"
        raise PreprocessingError(f"{form}, which is {kind}.")
    found = layout or (expected if expected in possible else possible[0])
    values = image.astype(np.float64)
    if not np.isfinite(values).all():
        raise PreprocessingError("the array has values that are NaN or infinite.")
    return (values.transpose(1, 2, 0) if found == "nchw" else values), found


@dataclass(frozen=True)
class _Explanation:
    """An image and an order of channels, and for each channel the mean and deviation, [3] of 0..255, with
    which they give the array but for `levels`, of 255 on average."""

    causes: tuple[str, ...]
    resized: str
    reversed: bool
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    levels: float


def _explain(values: NDArray[np.float64], variants: Iterable[Variant]) -> _Explanation:
    """The likeliest explanation of `values` [H, W, 3], of which the simplest is preferred."""
    tried = [
        (
            variant.deviations + reverse,
            _fit(values[..., ::-1] if reverse else values, variant, reverse),
        )
        for variant in variants
        for reverse in (False, True)
    ]
    tried.sort(key=lambda pair: pair[0])
    best = tried[0][1]
    for deviations in sorted({count for count, _ in tried}):
        nearest = min((e for count, e in tried if count == deviations), key=lambda e: e.levels)
        if nearest.levels < BETTER_SHARE * best.levels - BETTER_LEVELS:
            best = nearest
    return best


def _fit(values: NDArray[np.float64], variant: Variant, reverse: bool) -> _Explanation:
    """The mean and deviation that lead from the pixels of `variant` to `values`, by least squares."""
    pixels: Floats = variant.pixels
    samples = pixels.reshape(-1, COLOURS).astype(np.float64)
    targets = values.reshape(-1, COLOURS)
    centre, target_centre = samples.mean(axis=0), targets.mean(axis=0)
    moved = samples - centre
    variances, products = (moved**2).mean(axis=0), (moved * (targets - target_centre)).mean(axis=0)
    if variances.min() < MIN_VARIANCE:
        # A channel without contrast has no slope of its own.
        variances = np.full(COLOURS, max(variances.mean(), MIN_VARIANCE))
        products = np.full(COLOURS, products.mean())
    slopes = products / variances
    # Without a slope the deviation would be infinite.
    slopes = np.where(np.abs(slopes) < 1e-9, 1e-9, slopes)
    std = 1 / slopes
    mean = centre - target_centre * std
    levels = float(np.abs(targets * std + mean - samples).mean())
    return _Explanation(variant.causes, variant.resized, reverse, mean, std, levels)
