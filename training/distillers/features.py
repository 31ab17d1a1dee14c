"""Operations on features that several distillers share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from training.models.multi_exit import Outputs


def stage_pairs(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """Stage k's features of both networks, from the first stage on; extra stages are ignored."""
    return list(zip(student.features, teacher.features, strict=False))


def at_one_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [N, C, H, W], the larger averaged down to the height and width of the smaller.

    Channels may differ.
    """
    height = min(first.shape[2], second.shape[2])
    width = min(first.shape[3], second.shape[3])
    return _pooled(first, height, width), _pooled(second, height, width)


def unit(x: Tensor, dim: int) -> Tensor:
    """`x` scaled to Euclidean length 1 along `dim`.

    Vectors shorter than 1e-12 are returned unchanged, so the gradient at zero is finite.
    """
    squared = x.square().sum(dim, keepdim=True)
    return x / torch.where(squared > 1e-24, squared, 1.0).sqrt()


def _pooled(x: Tensor, height: int, width: int) -> Tensor:
    if x.shape[2:] == (height, width):
        return x
    return adaptive_avg_pool2d(x, (height, width))
