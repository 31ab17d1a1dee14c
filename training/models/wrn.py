"""Wide residual networks, cut into three stages.

Architecture: Zagoruyko and Komodakis 2016, WRN-d-k with 3 groups of (d - 4) / 6 blocks. Its blocks
begin with batch norm and ReLU, and those of a group's first block feed both the convolutions and the
shortcut. So they can as well end the stage before, and here they do: the function is the published
one, every stage ends with a ReLU like those of the other networks, and the last one ends with the
published final batch norm and ReLU.
"""

from __future__ import annotations

from torch import Tensor, nn

from training.models.backbone import Backbone
from training.models.layers import Pointwise

# Blocks in each of the three groups.
DEPTHS = {"wrn-16-2": 2, "wrn-40-2": 6}


class FirstBlock(nn.Module):
    """A group's first block, for an input after batch norm and ReLU, with a 1x1 shortcut:
    [N, cin, H, W] -> [N, cout, H/stride, W/stride]."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = _body(cin, cout, stride)
        self.shortcut = Pointwise(cin, cout, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Block(nn.Module):
    """Any other block: batch norm, ReLU and two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_activation(channels), _body(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def wrn_backbone(name: str, width: int) -> Backbone:
    """The three stages of network `name` whose first stage has `width` channels.

    That is 32 in the published WRN-16-2 and WRN-40-2: 16 times the widening factor 2. The stem has
    half as many.
    """
    stages: list[nn.Module] = []
    channels = [width, 2 * width, 4 * width]
    cin = width // 2
    for k, cout in enumerate(channels):
        layers: list[nn.Module] = []
        if k == 0:
            layers += [nn.Conv2d(3, cin, 3, 1, 1, bias=False), *_activation(cin)]
        layers.append(FirstBlock(cin, cout, stride=1 if k == 0 else 2))
        layers += [Block(cout) for _ in range(DEPTHS[name] - 1)]
        stages.append(nn.Sequential(*layers, *_activation(cout)))
        cin = cout
    return Backbone(stages, channels)


def _body(cin: int, cout: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride, 1, bias=False),
        *_activation(cout),
        nn.Conv2d(cout, cout, 3, 1, 1, bias=False),
    )


def _activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
