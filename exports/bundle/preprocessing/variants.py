"""The ways in which clients crop and resize a photograph, to find the one that an array was made by."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from exports.bundle.policy import Floats
from exports.bundle.preprocessing.inputs import StageInput
from exports.bundle.preprocessing.resampling import crop_start, linear
from exports.options import ResizeRule
from offramp.images import Pixels

Sides = tuple[int, int]  # height, width
Resizer = Callable[[Pixels, int, int], NDArray[Any]]
# Levels of 255, on average. Decoders of JPEG differ by less.
SAME_IMAGE = 4.0
# Of an image resized before its centre is cropped. Panoramas that are longer are left out.
MAX_RESIZED_PIXELS = 1 << 24
OTHER_STEPS = "resized in other steps"
OTHER_FILTER = "resized with another filter"


@dataclass(frozen=True)
class Variant:
    """An image as a client may have made it, float32 [h, w, 3], and how that differs from what is expected:
    `causes` in words, and `resized` for another resizing of the same kind."""

    causes: tuple[str, ...]
    pixels: Floats
    resized: str = ""

    @property
    def deviations(self) -> int:
        """How many things are other than expected."""
        return len(self.causes) + bool(self.resized)


def variants(
    content: bytes, whole: Pixels, image: Pixels, rule: ResizeRule, stage: StageInput
) -> Iterator[Variant]:
    """The expected image first, then others.

    `content` is the file, `whole` its image at its own size, and `image` the bundle's input.
    """
    taken = stage.taken(image)
    yield Variant((), taken)
    own = stage.preprocessing
    kept = taken.shape[0], taken.shape[1]
    crops: list[tuple[str | None, Sides]] = [(None, kept)]
    if own is not None and own.resized != own.side:
        share = f"{own.side / own.resized:.0%}"
        cause = f"all of the image is kept where its central {share} are expected"
        crops = [(None, (own.resized, own.resized)), (cause, kept)]
    expected = own.interpolation if own is not None and own.resized != len(image) else "bilinear"
    resizes = whole.shape != image.shape or (own is not None and own.resized != len(image))
    sources: list[tuple[str | None, Pixels]] = [(None, whole), *_as_stored(content, whole)]
    rules: list[tuple[str | None, ResizeRule]] = [(None, rule), _OTHER_RULE[rule]]
    for (metadata, source), (fitting, by), (crop, resized) in product(sources, rules, crops):
        causes = tuple(cause for cause in (metadata, fitting, crop) if cause is not None)
        target = _target(source, resized, by)
        if target == source.shape[:2]:
            yield Variant(causes, _centre(source, kept), OTHER_STEPS if resizes else "")
        elif math.prod(target) <= MAX_RESIZED_PIXELS:
            for name, resizer in RESIZERS.items():
                how = OTHER_STEPS if name == expected else f"{OTHER_FILTER} ({name})"
                yield Variant(causes, _centre(resizer(source, *target), kept), how)


_OTHER_RULE: dict[ResizeRule, tuple[str, ResizeRule]] = {
    "center_crop": ("the image is stretched where it is cropped to its centre", "stretch"),
    "stretch": ("the image is cropped to its centre where it is stretched", "center_crop"),
}


def _as_stored(content: bytes, whole: Pixels) -> Iterator[tuple[str, Pixels]]:
    """The image without what its metadata say, if that makes a difference."""
    try:
        # Pillow warns about metadata that the decoder ignores, too.
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(content)) as opened:
            stored = opened.convert("RGB")
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    # What Pillow raises for files that its plugins cannot read, such as HEIC, or that are damaged.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return
    pixels = np.asarray(stored)
    if _same(pixels, whole):
        return
    if stored.size != upright.size or not _same(pixels, np.asarray(upright)):
        yield "the EXIF orientation is ignored", pixels
    else:
        yield "the colour profile or the transparency is ignored", pixels


def _same(one: Pixels, other: Pixels) -> bool:
    return one.shape == other.shape and bool(
        np.abs(one.astype(np.int16) - other).mean() < SAME_IMAGE
    )


def _target(image: Pixels, resized: Sides, rule: ResizeRule) -> Sides:
    """The size to which `image` is resized, so that it is or covers `resized`."""
    height, width = resized
    if rule == "stretch":
        return resized
    scale = max(height / image.shape[0], width / image.shape[1])
    return (
        max(round(image.shape[0] * scale), height),
        max(round(image.shape[1] * scale), width),
    )


def _centre(image: NDArray[Any], kept: Sides) -> Floats:
    top, left = crop_start(image.shape[0], kept[0]), crop_start(image.shape[1], kept[1])
    centre: Floats = image[top : top + kept[0], left : left + kept[1]].astype(np.float32)
    return centre


def _pillow(filter_: Image.Resampling) -> Resizer:
    def resize(image: Pixels, height: int, width: int) -> NDArray[Any]:
        return np.asarray(Image.fromarray(image).resize((width, height), filter_))

    return resize


RESIZERS: dict[str, Resizer] = {
    "bilinear": _pillow(Image.Resampling.BILINEAR),
    "bicubic": _pillow(Image.Resampling.BICUBIC),
    "bilinear without antialiasing": linear,
    "lanczos": _pillow(Image.Resampling.LANCZOS),
    "box": _pillow(Image.Resampling.BOX),
    "nearest": _pillow(Image.Resampling.NEAREST),
}
