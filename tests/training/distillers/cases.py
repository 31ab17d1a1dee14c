"""Outputs of small networks, written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.training.distillers.tiny import network
from training.distillers import DISTILLERS
from training.distillers.base import Distiller
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective

Numbers = Sequence[float] | Sequence["Numbers"]


def shown(*features: Numbers | Tensor) -> Outputs:
    """Outputs with these stages [N, C, H, W]; the logits are zero."""
    stages = [torch.as_tensor(f, dtype=torch.float32) for f in features]
    return Outputs([torch.zeros(len(stages[0]), 2)], stages)


def embedded(*vectors: Sequence[float]) -> Outputs:
    """Outputs whose embeddings are these vectors, one per sample."""
    return shown(torch.tensor(vectors)[:, :, None, None])


def distiller(method: str, student: Outputs, teacher: Outputs, **weights: float) -> Distiller:
    """The distiller for these two, in eval mode: batch norm is the identity up to a factor of 5e-6."""
    objective = DistillerObjective.model_validate({"method": method, **weights})
    setting = Setting(network(), network(), torch.zeros(100, dtype=torch.int64))
    return DISTILLERS[method](objective, student, teacher, setting).eval()


def batch(samples: int) -> Batch:
    return Batch(torch.zeros(samples, dtype=torch.int64), torch.arange(samples))


def term(criterion: Distiller, student: Outputs, teacher: Outputs) -> float:
    """L_m as a float."""
    return criterion.term(student, teacher, batch(len(student.logits[0]))).item()


def put(parameter: Tensor, values: Numbers) -> None:
    """Fill `parameter` with zeros, then its first corner with `values`."""
    with torch.no_grad():
        block = torch.tensor(values, dtype=torch.float32)
        block = block.view(*block.shape, *[1] * (parameter.dim() - block.dim()))
        parameter.zero_()
        parameter[tuple(slice(0, size) for size in block.shape)] = block
