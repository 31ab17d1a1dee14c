"""AT: attention transfer (Zagoruyko and Komodakis, ICLR 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.distillers.base import Distiller
from training.distillers.features import at_one_size, stage_pairs, unit
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch


class AttentionTransfer(Distiller):
    """L_m = sum_k mean (q_s - q_t)^2 over samples and positions, where q [N, H W] is the mean over
    channels of the squared features of stage k, scaled to length 1. The larger of two maps is averaged
    down to the smaller one.

    Section 3.1 and equation 2 of the paper; the mean in place of the norm is that of its authors' code,
    the averaging and beta are those of RepDistiller (Tian et al., ICLR 2020).
    """

    beta = 1000.0

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        pairs = [at_one_size(s, t) for s, t in stage_pairs(student, teacher)]
        return torch.stack(
            [(_attention(s) - _attention(t)).square().mean() for s, t in pairs]
        ).sum()


def _attention(features: Tensor) -> Tensor:
    return unit(features.square().mean(1).flatten(1), dim=1)
