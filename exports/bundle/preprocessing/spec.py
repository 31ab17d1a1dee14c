"""What a network expects of an image, as the manifest says it, applied with numpy."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from exports.bundle.policy import Floats
from exports.bundle.preprocessing.resampling import Interpolation, crop_start, resampling_matrix
from exports.options import Channels, Layout

Triple = tuple[float, float, float]

MAX_SIDE = 4096
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Preprocessing(BaseModel):
    """How a network's input is made of the bundle's square image.

    The image is resized to `resized` pixels a side and its central `side` pixels are kept. A pixel x in
    0..255 becomes (x - mean) / std; `mean` and `std` are of red, green and blue, whatever the order of
    `channels` in the network's input. `half` networks take float16 and `whole` ones uint8, of rounded
    pixels; others take float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: Side
    resized: Side
    interpolation: Interpolation
    layout: Layout
    channels: Channels
    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]
    half: bool = False
    whole: bool = False

    def __str__(self) -> str:
        """In one line, for people."""
        crop = "" if self.resized == self.side else f" of {self.resized} ({self.interpolation})"
        mean, std = (
            ", ".join(f"{value / 255:.3g}" for value in values) for values in (self.mean, self.std)
        )
        return (
            f"{self.side} x {self.side}{crop}, {self.layout.upper()}, {self.channels.upper()}, "
            f"mean {mean}, deviation {std}"
        )

    def pixels(self, images: NDArray[np.uint8]) -> Floats:
        """The part of images uint8 [N, S, S, 3] that the network sees: float32 [N, side, side, 3], RGB in
        0..255, not rounded except for `whole` networks."""
        source = images.shape[1]
        if source == self.resized:
            start = crop_start(source, self.side)
            kept = slice(start, start + self.side)
            return images[:, kept, kept].astype(np.float32)
        matrix = resampling_matrix(source, self.resized, self.side, self.interpolation)
        pixels = np.einsum("ih,nhwc,jw->nijc", matrix, images, matrix, optimize=True)
        clipped: Floats = np.clip(pixels, 0, 255)
        return np.round(clipped) if self.whole else clipped

    def apply(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """The network's input for images uint8 [N, S, S, 3]."""
        values = (self.pixels(images) - np.array(self.mean, np.float32)) / np.array(
            self.std, np.float32
        )
        if self.channels == "bgr":
            values = values[..., ::-1]
        if self.layout == "nchw":
            values = values.transpose(0, 3, 1, 2)
        kind = np.uint8 if self.whole else np.float16 if self.half else np.float32
        return np.ascontiguousarray(values, kind)
