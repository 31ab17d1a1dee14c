"""Networks by name: backbone and heads put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from training.models.backbone import Backbone
from training.models.heads import build_heads
from training.models.multi_exit import MultiExit
from training.recipes.network import NetworkRecipe


def network_from_recipe(network: NetworkRecipe, classes: int) -> MultiExit:
    """The network of a recipe, with fresh weights and a head for `classes` on each of its exits."""
    if network.channels is None:
        backbone = build_backbone(network.name, network.width)
    else:
        from training.models.resnet import general_resnet

        backbone = general_resnet(
            network.channels, network.blocks or (), network.exits_after or (), network.stem
        )
    side, antialias = network.side, network.antialias is True
    return _with_heads(backbone, classes, network.exits, network.heads, side, antialias)


def build_network(
    name: str, width: int | None, classes: int, exits: Sequence[int], heads: str = "sepconv"
) -> MultiExit:
    """Backbone `name` of first-stage `width` (None where it cannot be chosen), with a head of design
    `heads` after each of the 1-based stages `exits`, which increase and end with the last stage.
    """
    return _with_heads(build_backbone(name, width), classes, exits, heads)


def build_backbone(name: str, width: int | None) -> Backbone:
    """The backbone `name` whose first stage has `width` channels, with fresh weights.

    torchvision's networks and EfficientNet-Lite have no width to choose: None. Raises KeyError for an
    unknown name; recipes are checked before.
    """
    if width is not None:
        return _builders()[name](name, width)
    from training.models import efficientnet_lite

    if name in efficientnet_lite.SPECS:
        return efficientnet_lite.lite_backbone(name)
    from training.models.torchvision_backbones import torchvision_backbone

    return torchvision_backbone(name)


def _with_heads(
    backbone: Backbone,
    classes: int,
    exits: Sequence[int],
    heads: str,
    side: int | None = None,
    antialias: bool = False,
) -> MultiExit:
    built = build_heads(heads, backbone, classes)
    heads_of_exits = [built[k - 1] for k in exits]
    network = MultiExit(backbone.stages, heads_of_exits, exits, side, antialias)
    network.apply(_init)
    return network


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _builders() -> dict[str, Callable[[str, int], Backbone]]:
    from training.models import resnet, vgg, wrn

    return {
        **dict.fromkeys(resnet.SPECS, resnet.resnet_backbone),
        **dict.fromkeys(vgg.DEPTHS, vgg.vgg_backbone),
        **dict.fromkeys(wrn.DEPTHS, wrn.wrn_backbone),
    }
