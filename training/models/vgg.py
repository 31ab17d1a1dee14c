"""VGG networks with batch norm and no hidden linear layers, cut into four stages.

Architecture: Simonyan and Zisserman 2015, in the form the distillation literature uses for inputs
of 32 pixels: five blocks of 3x3 convolutions with biases, global pooling instead of the linear layers.
Blocks 4 and 5 form stage 4, so exits lie behind blocks 1, 2, 3 and 5. Every later stage begins with
its 2x2 max-pool, and so every stage ends with a ReLU.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from training.models.backbone import Backbone

# Convolutions in each of the five blocks.
DEPTHS = {"vgg8": 1, "vgg13": 2}


class HalveLarge(nn.Module):
    """2x2 max-pool of maps at least 8 pixels high and wide; smaller maps pass unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, 2) if min(x.shape[-2:]) >= 8 else x


def vgg_backbone(name: str, width: int) -> Backbone:
    """The four stages of network `name` whose first stage has `width` channels (64 in the paper).

    The published networks pool between blocks 4 and 5 for inputs of 64 pixels but not of 32. Here
    that follows from the input alone: the map is pooled if it is 8 pixels or larger, which it is from
    64-pixel inputs on. One network, with the same weights, takes both; its last map is 4 x 4 for both.
    """
    depth = DEPTHS[name]
    channels = [width, 2 * width, 4 * width, 8 * width]
    stages: list[nn.Module] = []
    cin = 3
    for k, cout in enumerate(channels, 1):
        layers: list[nn.Module] = [] if k == 1 else [nn.MaxPool2d(2)]
        layers += _block(cin, cout, depth)
        if k == len(channels):
            layers += [HalveLarge(), *_block(cout, cout, depth)]
        stages.append(nn.Sequential(*layers))
        cin = cout
    return Backbone(stages, channels)


def _block(cin: int, cout: int, depth: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(cin, cout, 3, 1, 1), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]
        cin = cout
    return layers
