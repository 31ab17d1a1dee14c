"""A network that torch's exporter takes little time for."""

from __future__ import annotations

import torch
from torch import nn

from training.models.multi_exit import MultiExit


def two_exits(side: int, antialias: bool = False) -> MultiExit:
    """Two stages, the second with a depthwise convolution, and ten classes; images are resized to `side`
    pixels."""
    torch.manual_seed(0)

    def block(wide: int, narrow: int, groups: int) -> nn.Module:
        convolution = nn.Conv2d(wide, narrow, 3, stride=2, padding=1, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(narrow), nn.ReLU6())

    def head() -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    stages, heads = [block(3, 8, 1), block(8, 8, 8)], [head(), head()]
    return MultiExit(stages, heads, (1, 2), side, antialias).eval()
