"""The multi-exit network: stages in a row, heads on some of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from training.models.backbone import NoFinalReLU
from training.models.gradient import scale_gradient
from training.models.layers import Resize


@dataclass(frozen=True)
class Outputs:
    """All that a network shows of one batch of N images.

    `logits`: [N, C] for every exit. `features`: [N, C_k, H_k, W_k] for every stage of the backbone,
    with an exit or without. `preactivations`: the same before the stage's last ReLU, and the same
    again for a stage that does not end in one; empty unless asked for.
    """

    logits: list[Tensor]
    features: list[Tensor]
    preactivations: list[Tensor] = field(default_factory=list)

    @property
    def embedding(self) -> Tensor:
        """The last stage's features averaged over positions: [N, C_K]."""
        return self.features[-1].mean(dim=(2, 3))

    def float(self) -> Outputs:
        """All of it in float32."""
        return Outputs(
            *(
                [x.float() for x in part]
                for part in (self.logits, self.features, self.preactivations)
            )
        )


class MultiExit(nn.Module):
    """Takes normalised images [N, 3, H, W], gives the logits [N, classes] of every exit.

    `exit_stages` are the stages that carry the heads: 1-based, increasing, the last stage among them.
    With `side`, images are resized to that many pixels before stage 1, and shrunk with `antialias`.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        exit_stages: Sequence[int],
        side: int | None = None,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(heads)
        self.exit_stages = tuple(exit_stages)
        self.side = side
        self.antialias = antialias
        self._frozen: list[nn.Module] = []

    @property
    def exits(self) -> int:
        """How many exits there are, K."""
        return len(self.heads)

    def segments(self) -> list[nn.Module]:
        """What lies between one exit and the next, one module per exit, sharing the weights. The first
        one includes the resizing of images."""
        starts = (0, *self.exit_stages[:-1])
        segments = [
            self.stages[end - 1] if end - start == 1 else nn.Sequential(*self.stages[start:end])
            for start, end in zip(starts, self.exit_stages, strict=True)
        ]
        if self.side is not None:
            segments[0] = nn.Sequential(Resize(self.side, self.antialias), segments[0])
        return segments

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.observe(x).logits

    def observe(
        self,
        x: Tensor,
        *,
        side: int | None = None,
        preactivations: bool = False,
        gradient_equilibrium: bool = False,
    ) -> Outputs:
        """Logits and features of a batch. With `gradient_equilibrium` the exits' gradients are
        rescaled so that no stage gets more of them the more exits lie behind it (Li et al. 2019,
        "Improved Techniques for Training Adaptive Deep Networks", section 3.1): with r exits from here
        on, what enters the head and the trunk is scaled by 1/r and the trunk again by r - 1. `side`
        replaces the network's own.
        """
        if side is None:
            side = self.side
        if side is not None:
            x = Resize(side, self.antialias)(x)
        seen = Outputs([], [])
        left = self.exits
        heads = dict(zip(self.exit_stages, self.heads, strict=True))
        for k, stage in enumerate(self.stages, 1):
            if preactivations:
                x, before = _run(stage, x)
                seen.preactivations.append(before)
            else:
                x = stage(x)
            seen.features.append(x)
            if k not in heads:
                continue
            if gradient_equilibrium:
                x = scale_gradient(x, 1.0 / left)
            seen.logits.append(heads[k](x))
            left -= 1
            if gradient_equilibrium and left:
                x = scale_gradient(x, float(left))
        return seen

    def freeze(self, modules: Sequence[nn.Module]) -> None:
        """Keep `modules` as they are: no gradients, batch norm in eval mode whatever the mode."""
        self._frozen = list(modules)
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


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

    def repeated(self, width: int) -> Normalize:
        """The same for images of `width` columns, with the constants repeated for every column.

        onnxruntime moves the permutation behind the arithmetic. Constants of one value a channel then lie
        along the last axis, and blocks of three values make both operations twenty times slower.
        """
        normalize = copy.deepcopy(self)
        normalize.scale = self.scale.expand(1, 3, 1, width).contiguous()
        normalize.shift = self.shift.expand(1, 3, 1, width).contiguous()
        return normalize


def _run(stage: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of `stage`, and what goes into its last ReLU, or the output again if it has none."""
    if isinstance(stage, NoFinalReLU):
        y = stage(x)
        return y, y
    before = x

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal before  # a block may use one ReLU several times: its last use counts
        before = inputs[0].clone()  # and it may work in place

    *_, relu = (module for module in stage.modules() if isinstance(module, nn.ReLU))
    hook = relu.register_forward_pre_hook(keep)
    try:
        return stage(x), before
    finally:
        hook.remove()
