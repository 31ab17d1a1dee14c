"""What every network is before it gets heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from torch import nn


@dataclass(frozen=True)
class Backbone:
    """K stages in a row; stage k outputs `channels[k - 1]` channels.

    `halvings[k - 1]` are the channels after each halving of the side within stage k; it is empty for
    a stage that keeps the side. Unless given, every stage but the first halves the side once (a VGG's
    last one may quarter it).
    """

    stages: list[nn.Module]
    channels: list[int]
    halvings: Sequence[Sequence[int]] | None = None

    def remaining_channels(self, stage: int) -> list[int]:
        """The channels of the 0-based `stage`, then those after each later halving of the side."""
        if self.halvings is None:
            return self.channels[stage:]
        return [self.channels[stage], *chain.from_iterable(self.halvings[stage + 1 :])]


class NoFinalReLU(nn.Sequential):
    """A stage that ends without a ReLU; one inside it is not its last activation."""
