"""Residual networks: the published ones cut into four stages, and a general one cut after any block.

Architecture: He et al. 2016, with a 3x3 stride-1 stem and no max-pool, the usual form for inputs
of 32 pixels. The stem belongs to stage 1, so a network is a plain list of stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from training.models.backbone import Backbone
from training.models.layers import Pointwise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: [N, cin, H, W] -> [N, width, H/stride, W/stride]."""

    expansion = 1

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(cin, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = _shortcut(cin, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut: [N, cin, H, W] -> [N, 4 width, H/stride, W/stride]."""

    expansion = 4

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = width * self.expansion
        self.body = nn.Sequential(
            nn.Conv2d(cin, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )
        self.shortcut = _shortcut(cin, cout, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def _shortcut(cin: int, cout: int, stride: int) -> nn.Module:
    if stride == 1 and cin == cout:
        return nn.Identity()
    return nn.Sequential(Pointwise(cin, cout, stride), nn.BatchNorm2d(cout))


@dataclass(frozen=True)
class ResNetSpec:
    """Block type and the number of blocks in each of the four stages."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]


SPECS: dict[str, ResNetSpec] = {
    "resnet10": ResNetSpec(BasicBlock, (1, 1, 1, 1)),
    "resnet18": ResNetSpec(BasicBlock, (2, 2, 2, 2)),
    "resnet34": ResNetSpec(BasicBlock, (3, 4, 6, 3)),
    "resnet50": ResNetSpec(Bottleneck, (3, 4, 6, 3)),
    "resnet152": ResNetSpec(Bottleneck, (3, 8, 36, 3)),
}


def resnet_backbone(name: str, width: int) -> Backbone:
    """The four stages of network `name` whose first stage has `width` channels (64 in the paper).

    Bottleneck networks give four times as many.
    """
    spec = SPECS[name]
    stages: list[nn.Module] = []
    channels: list[int] = []
    cin = width
    for k, depth in enumerate(spec.depths):
        layers: list[nn.Module] = []
        if k == 0:
            layers += _cifar_stem(width)
        for i in range(depth):
            layers.append(spec.block(cin, width << k, stride=2 if k > 0 and i == 0 else 1))
            cin = (width << k) * spec.block.expansion
        stages.append(nn.Sequential(*layers))
        channels.append(cin)
    return Backbone(stages, channels)


def general_resnet(
    channels: Sequence[int], blocks: Sequence[int], exits_after: Sequence[int], stem: str | None
) -> Backbone:
    """A residual network of basic blocks in groups: group g has `blocks[g]` of them with `channels[g]`
    channels, and every group but the first halves the side.

    A stage ends after each of the blocks `exits_after`, counted from 1 through the whole network; the
    last of them is the last block. `stem` "imagenet" divides the side by four before the first group.
    """
    layers = _imagenet_stem(channels[0]) if stem == "imagenet" else _cifar_stem(channels[0])
    stages: list[nn.Module] = []
    widths: list[int] = []
    halvings: list[list[int]] = [[]]
    cin, count = channels[0], 0
    for group, (width, depth) in enumerate(zip(channels, blocks, strict=True)):
        for i in range(depth):
            halves = group > 0 and i == 0
            layers.append(BasicBlock(cin, width, stride=2 if halves else 1))
            if halves:
                halvings[-1].append(width)
            cin = width
            count += 1
            if count in exits_after:
                stages.append(nn.Sequential(*layers))
                widths.append(width)
                halvings.append([])
                layers = []
    return Backbone(stages, widths, halvings[:-1])


def _cifar_stem(width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


def _imagenet_stem(width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
