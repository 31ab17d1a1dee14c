"""Networks by name: backbone and heads put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from training.models.backbone import Backbone
from training.models.heads import build_heads
from training.models.multi_exit import MultiExit


def build_network(
    name: str, width: int | None, classes: int, exits: Sequence[int], heads: str = "sepconv"
) -> MultiExit:
    """Backbone `name` of first-stage `width` (None for torchvision's), with a head of design `heads`
    after each of the 1-based stages `exits`, which increase and end with the backbone's last stage.
    """
    backbone = build_backbone(name, width)
    built = build_heads(heads, backbone, classes)
    network = MultiExit(backbone.stages, [built[k - 1] for k in exits], exits)
    network.apply(_init)
    return network


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


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
