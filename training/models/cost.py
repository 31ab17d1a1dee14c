"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """The number of learnt values, frozen ones included."""
    return sum(p.numel() for p in module.parameters())


def count_macs(module: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers for the batch `example`."""
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return total
