"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from training.models.build import network_from_recipe
from training.recipes.network import NetworkRecipe


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


@cache
def network_cost(network: NetworkRecipe, side: int, classes: int) -> tuple[int, int]:
    """Parameters of a network and its multiply-accumulates for one image of `side` pixels with all
    exits. No weights are made for it."""
    with torch.device("meta"):
        built = network_from_recipe(network, classes)
        return count_parameters(built), count_macs(built.eval(), torch.empty(1, 3, side, side))
