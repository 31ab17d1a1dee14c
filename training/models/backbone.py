"""What every network is before it gets heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Backbone:
    """K stages in a row; stage k gives `channels[k - 1]` channels.

    Every stage but the first halves the side of its input; a VGG's last one may quarter it.
    """

    stages: list[nn.Module]
    channels: list[int]


class NoFinalReLU(nn.Sequential):
    """A stage that ends without a ReLU; one inside it is not its last activation."""
