"""Layers that backbones and heads share."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from training.models.layers import Depthwise, Pointwise

# A process of its own: where memory is overwritten, the process dies.
TRAIN_A_NARROW_NETWORK = """
import torch
from training.models.resnet import Bottleneck
from training.models.wrn import FirstBlock
torch.set_num_threads(1)
for block in (FirstBlock(8, 16, 2), Bottleneck(8, 4, 2)):
    block.to(memory_format=torch.channels_last)
    for _ in range(12):
        images = torch.randn(32, 8, 64, 64).contiguous(memory_format=torch.channels_last)
        block(images.requires_grad_()).sum().backward()
"""


def test_training_a_narrow_network_on_large_images_leaves_other_memory_alone() -> None:
    run = subprocess.run(
        [sys.executable, "-c", TRAIN_A_NARROW_NETWORK], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("channels", [4, 16])
def test_a_strided_pointwise_convolution_trains_as_torchs_own(channels: int, side: int) -> None:
    torch.manual_seed(0)
    ours = Pointwise(channels, 6, 2)
    theirs = nn.Conv2d(channels, 6, 1, 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, channels, side, side)

    for found, expected in zip(gradients(ours, images), gradients(theirs, images), strict=True):
        assert_close(found, expected)
    assert_close(copy.deepcopy(ours).eval()(images), theirs(images))


@pytest.mark.parametrize(
    ("kernel", "height", "width"),
    [(5, 3, 3), (5, 4, 4), (5, 2, 7), (5, 6, 4), (3, 2, 2), (5, 1, 1)],
)
def test_a_depthwise_convolution_of_a_small_map_trains_as_torchs_own(
    kernel: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    ours = Depthwise(6, 1, kernel)
    theirs = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, bias=False)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(3, 6, height, width)
    for found, expected in zip(gradients(ours, images), gradients(theirs, images), strict=True):
        assert_close(found, expected)


def gradients(layer: nn.Conv2d, images: Tensor) -> tuple[Tensor, ...]:
    """The output of `layer`, and the gradients of its squares by the images and by the weights."""
    seen = images.clone().requires_grad_()
    output = layer(seen)
    output.square().sum().backward()
    assert seen.grad is not None
    assert layer.weight.grad is not None
    return output.detach(), seen.grad, layer.weight.grad
