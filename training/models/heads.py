"""Heads: the small classifiers on the stages' outputs.

A head is any module that maps features [N, C, H, W] to logits [N, classes]. `build_heads` gives
one per stage; the last stage has the network's ordinary head. All others bring the features to the
last stage's width, halve their side as often as the later stages do, and end with a linear layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate

from training.models.backbone import Backbone
from training.models.layers import Depthwise


class SepConv(nn.Module):
    """Two depthwise-separable 3x3 convolutions, the first with stride 2.

    [N, cin, H, W] -> [N, cout, ceil(H/2), ceil(W/2)]. Zhang et al., "Be Your Own Teacher" (ICCV
    2019) and its journal version (TPAMI 2021).
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Depthwise(cin, stride=2),
            nn.Conv2d(cin, cin, 1, bias=False),
            nn.BatchNorm2d(cin),
            nn.ReLU(inplace=True),
            Depthwise(cin, stride=1),
            nn.Conv2d(cin, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Attention(nn.Module):
    """Multiplies features by a mask in (0, 1) computed at half their resolution; keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask = nn.Sequential(
            SepConv(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        mask = interpolate(self.mask(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * mask.sigmoid()


class SepConvHead(nn.Module):
    """Attention if wanted, then a SepConv for every later halving, then the linear classifier.

    `channels` are those of the head's own stage and those after each later halving of the side, so
    every head ends with the last stage's width and resolution.
    """

    def __init__(self, channels: Sequence[int], classes: int, *, attention: bool) -> None:
        super().__init__()
        self.attention = Attention(channels[0]) if attention else nn.Identity()
        self.reduce = nn.Sequential(*(SepConv(cin, cout) for cin, cout in pairwise(channels)))
        self.classify = LinearHead(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.reduce(self.attention(x)))


class LinearHead(nn.Module):
    """Global average pooling and a linear layer: the ordinary last exit."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean(dim=(2, 3)))


def build_heads(design: str, backbone: Backbone, classes: int) -> list[nn.Module]:
    """One head of `design` per stage of `backbone`; the last stage always has the linear one.

    Raises KeyError for an unknown design; recipes are checked before.
    """
    build = DESIGNS[design]
    early = [build(backbone, k, classes) for k in range(len(backbone.stages) - 1)]
    return [*early, LinearHead(backbone.channels[-1], classes)]


def _sepconv(backbone: Backbone, stage: int, classes: int) -> nn.Module:
    """Separable convolutions behind attention, as in the journal version of Zhang et al."""
    return SepConvHead(backbone.remaining_channels(stage), classes, attention=True)


def _sepconv_plain(backbone: Backbone, stage: int, classes: int) -> nn.Module:
    """The same without attention."""
    return SepConvHead(backbone.remaining_channels(stage), classes, attention=False)


def _bottleneck(backbone: Backbone, stage: int, classes: int) -> nn.Module:
    """1x1, k x k with stride k and 1x1 convolutions, at a quarter of the last stage's width C:
    k = 2^r for r later halvings. Convolutions have biases. Zhang et al., "Be Your Own Teacher" (ICCV
    2019), as publicly reimplemented.
    """
    cin, *later = backbone.remaining_channels(stage)
    cout = backbone.channels[-1]
    middle, side = cout // 4, 2 ** len(later)
    return nn.Sequential(
        nn.Conv2d(cin, middle, 1),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, middle, side, side),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, cout, 1),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
        LinearHead(cout, classes),
    )


def _conv(backbone: Backbone, stage: int, classes: int) -> nn.Module:
    """A 3x3 convolution with stride 2 for every later halving. Lee and Lee, "Students are the Best
    Teacher: Exit-Ensemble Distillation with Multi-Exits" (2021)."""
    layers: list[nn.Module] = []
    for cin, cout in pairwise(backbone.remaining_channels(stage)):
        layers += [
            nn.Conv2d(cin, cout, 3, 2, 1, bias=False),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, LinearHead(backbone.channels[-1], classes))


def _copy(backbone: Backbone, stage: int, classes: int) -> nn.Module:
    """All later stages once more, with weights of their own. Yang et al., "Hierarchical
    Self-supervised Augmented Knowledge Distillation" (IJCAI 2021)."""
    later = copy.deepcopy(backbone.stages[stage + 1 :])
    return nn.Sequential(*later, LinearHead(backbone.channels[-1], classes))


# A design builds the head of the 0-based stage of a backbone.
DESIGNS: dict[str, Callable[[Backbone, int, int], nn.Module]] = {
    "sepconv": _sepconv,
    "sepconv-plain": _sepconv_plain,
    "bottleneck": _bottleneck,
    "conv": _conv,
    "copy": _copy,
}
