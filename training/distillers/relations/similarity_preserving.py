"""SP: similarity-preserving knowledge distillation (Tung and Mori, ICCV 2019)."""

from __future__ import annotations

from torch import Tensor

from training.distillers.base import Distiller
from training.distillers.features import unit
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch


class SimilarityPreserving(Distiller):
    """L_m = ||G_t - G_s||_F^2 / N^2, where G = F F^T with rows scaled to length 1 and F [N, C H W]
    is the last stage's features. Equations 1 to 4 of the paper; beta as in its public comparisons.
    """

    beta = 3000.0

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        s, t = (_similarities(outputs.features[-1]) for outputs in (student, teacher))
        return (t - s).square().mean()


def _similarities(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    return unit(flat @ flat.T, dim=1)
