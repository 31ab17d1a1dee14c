"""Measures depthwise convolutions on maps smaller than their kernel, with and without added zeros.

    python -m benchmarks.teaching.small_maps

Forward and backward pass of torch's convolution and of `training.models.layers.Depthwise`, and a whole step
of the networks that meet such maps. One thread, float32, random values; the fastest of interleaved repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.harness.docs import table
from training.models.build import network_from_recipe
from training.models.layers import Depthwise
from training.recipes.network import NetworkRecipe
from training.speed import keep_freed_memory

CHANNELS = 1152
# Kernel, and side of the map.
MAPS = ((5, 4), (5, 3), (5, 2), (3, 2))
# Backbone, side of the images, and how many of them.
NETWORKS = (
    ("efficientnet-lite0", 80, 64),
    ("efficientnet-lite0", 120, 32),
    ("efficientnet-lite2", 128, 32),
)
REPEATS = 7


class Plain(Depthwise):
    """Depthwise convolution without added zeros."""

    def _on_cpu(self, x: Tensor) -> Tensor:
        return nn.Conv2d.forward(self, x)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = [_row(*_layers(kernel, side)) for kernel, side in MAPS]
    rows += [_row(*_networks(name, side, count)) for name, side, count in NETWORKS]
    print(table(["", "torch's, ms", "with zeros, ms", "share"], rows))


def _layers(kernel: int, side: int) -> tuple[str, nn.Module, nn.Module, Tensor]:
    plain, ours = (kind(CHANNELS, 1, kernel) for kind in (Plain, Depthwise))
    images = torch.randn(64, CHANNELS, side, side)
    return f"{kernel}x{kernel}, maps of {side} pixels, {CHANNELS} channels", plain, ours, images


def _networks(name: str, side: int, count: int) -> tuple[str, nn.Module, nn.Module, Tensor]:
    recipe = NetworkRecipe.model_validate({"name": name, "exits": (4,)})
    plain, ours = (network_from_recipe(recipe, 100) for _ in range(2))
    for module in plain.modules():
        if isinstance(module, Depthwise):
            module.__class__ = Plain
    return f"{name}, {side} pixels, a step", plain, ours, torch.randn(count, 3, side, side)


def _row(name: str, plain: nn.Module, ours: nn.Module, images: Tensor) -> list[object]:
    images = images.contiguous(memory_format=torch.channels_last)
    # Inside a network the input of a layer has a gradient, that of the network has none.
    images.requires_grad_(isinstance(ours, Depthwise))
    steps = [_step(network, images) for network in (plain, ours)]
    times = [[_milliseconds(step) for step in steps] for _ in range(1 + REPEATS)][1:]
    before, after = (min(column) for column in zip(*times, strict=True))
    return [name, f"{before:.0f}", f"{after:.0f}", f"{after / before:.2f}"]


def _step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    network = network.to(memory_format=torch.channels_last).train()
    labels = torch.arange(len(images))

    def step() -> None:
        network.zero_grad()
        output = network(images)
        if isinstance(output, Tensor):
            output.sum().backward()
        else:
            torch.stack([cross_entropy(logits, labels) for logits in output]).sum().backward()

    return step


def _milliseconds(step: Callable[[], None]) -> float:
    started = time.process_time()
    step()
    return 1e3 * (time.process_time() - started)


if __name__ == "__main__":
    main()
