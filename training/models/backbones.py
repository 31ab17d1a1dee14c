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


class NoFinalReLU(nn.Sequential):
    """A stage that ends without a ReLU; one inside it is not its last activation."""


def build_backbone(name: str, width: int | None) -> Backbone:
    """The backbone `name` whose first stage has `width` channels, with fresh weights.

    torchvision's networks have no width to choose: None. Raises KeyError for an unknown name;
    recipes are checked before.
    """
    if width is None:
        from training.models.torchvision_backbones import torchvision_backbone

        return torchvision_backbone(name)
    return _builders()[name](name, width)


def _builders() -> dict[str, Callable[[str, int], Backbone]]:
    from training.models import resnet, vgg, wrn

    return {
        **dict.fromkeys(resnet.SPECS, resnet.resnet_backbone),
        **dict.fromkeys(vgg.DEPTHS, vgg.vgg_backbone),
        **dict.fromkeys(wrn.DEPTHS, wrn.wrn_backbone),
    }
