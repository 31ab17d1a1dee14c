"""Backbones by name: what every network is before it gets heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Backbone:
    """K stages in a row; stage k gives `channels[k - 1]` channels.

    Every stage but the first halves the side of its input; a VGG's last one may quarter it.
    """

    stages: list[nn.Module]
    channels: list[int]


def build_backbone(name: str, width: int) -> Backbone:
    """The backbone `name` whose first stage has `width` channels, with fresh weights.

    Raises KeyError for an unknown name; recipes are checked before.
    """
    return _builders()[name](name, width)


def _builders() -> dict[str, Callable[[str, int], Backbone]]:
    from training.models import resnet, vgg, wrn

    return {
        **dict.fromkeys(resnet.SPECS, resnet.resnet_backbone),
        **dict.fromkeys(vgg.DEPTHS, vgg.vgg_backbone),
        **dict.fromkeys(wrn.DEPTHS, wrn.wrn_backbone),
    }
