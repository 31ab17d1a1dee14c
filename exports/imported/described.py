"""What is known of a network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from exports.bundle.preprocessing.resampling import Interpolation
from exports.bundle.preprocessing.spec import Triple
from exports.options import Channels, ResizeRule

# The bounds of what a file can mean, far from where float32 would overflow.
Mean = Annotated[float, Field(ge=-1e4, le=1e4)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]
Means = tuple[Mean, Mean, Mean]
Deviations = tuple[Deviation, Deviation, Deviation]


@dataclass(frozen=True)
class PreprocessingConfig:
    """What a preset or a file says of a network's input; `mean` and `std` are in 0..255.

    `side` is the network's input and None if unknown; `crop` is the share of the resized image that the
    network sees. `origin` names the preset or the file.
    """

    origin: str
    mean: Triple
    std: Triple
    side: int | None = None
    crop: float = 1.0
    rule: ResizeRule | None = None
    interpolation: Interpolation = "bilinear"
    channels: Channels = "rgb"


def in_pixels(values: Sequence[Any], unit: float = 255.0) -> Triple:
    """`values` of red, green and blue in multiples of `unit`, for pixels of 0 to 255."""
    red, green, blue = (float(value) * unit for value in values)
    return red, green, blue
