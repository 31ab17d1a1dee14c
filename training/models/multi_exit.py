"""The multi-exit network: stages in a row, a head on each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.models.heads import build_heads
from training.models.resnet import resnet_stages


class MultiExit(nn.Module):
    """K stages and K heads. Takes normalised images [N, 3, H, W], gives K logits [N, classes]."""

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads)

    @property
    def exits(self) -> int:
        """How many exits there are, K."""
        return len(self.heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        logits: list[Tensor] = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            logits.append(head(x))
        return logits


class Normalize(nn.Module):
    """uint8 images [N, H, W, 3] -> float32 [N, 3, H, W], zero mean and unit deviation per channel.

    `mean` and `std` are in units of the full range, as in (0.5, 0.5, 0.5).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float32))
        self.register_buffer("scale", scale.view(1, 3, 1, 1))
        shift = -torch.tensor(mean, dtype=torch.float32) / torch.tensor(std, dtype=torch.float32)
        self.register_buffer("shift", shift.view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2).float() * self.scale + self.shift


def build_network(name: str, width: int, classes: int, exits: Sequence[int]) -> MultiExit:
    """Backbone `name` of first-stage `width`, with a head after each of the 1-based stages `exits`.

    `exits` is increasing and ends with the backbone's last stage. Backbone stages without a head
    are joined to the next one, so that every stage of the result ends in an exit.
    """
    blocks, channels = resnet_stages(name, width)
    heads = build_heads(channels, classes)
    starts = [0, *exits[:-1]]
    stages = [
        blocks[end - 1] if end - start == 1 else nn.Sequential(*blocks[start:end])
        for start, end in zip(starts, exits, strict=True)
    ]
    network = MultiExit(stages, [heads[k - 1] for k in exits])
    network.apply(_init)
    return network


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
