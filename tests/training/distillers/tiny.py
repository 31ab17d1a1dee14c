"""Distillers on tensors small enough to compute by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.distillers import DISTILLERS
from training.distillers.base import Distiller
from training.models.build import build_network
from training.models.multi_exit import MultiExit, Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective


def shown(
    logits: Tensor, features: Sequence[Tensor] = (), preactivations: Sequence[Tensor] = ()
) -> Outputs:
    """The outputs of a network with one exit for a batch."""
    return Outputs([logits], list(features), list(preactivations))


def vectors(rows: Sequence[Sequence[float]]) -> Tensor:
    """A map of one position: [N, C, 1, 1]."""
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


def network() -> MultiExit:
    """A ResNet-10 of four channels with one exit and two classes."""
    return build_network("resnet10", 4, 2, [4])


def distiller(
    method: str, student: Outputs, teacher: Outputs, labels: Tensor | None = None
) -> Distiller:
    """The distiller `method` with its source's weights, for a split with these labels."""
    objective = DistillerObjective.model_validate({"method": method})
    if labels is None:
        labels = torch.tensor([0, 1])
    return DISTILLERS[method](objective, student, teacher, Setting(network(), network(), labels))


def batch(labels: Sequence[int], index: Sequence[int] | None = None) -> Batch:
    """A batch of images with these labels, at these indices of the split."""
    return Batch(torch.tensor(labels), torch.tensor(range(len(labels)) if index is None else index))
