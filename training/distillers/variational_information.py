"""VID: variational information distillation (Ahn et al., CVPR 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.distillers.base import Distiller
from training.distillers.features import at_one_size, stage_pairs
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective

EPSILON = 1e-5
FIRST_VARIANCE = 5.0


class VariationalInformation(Distiller):
    """L_m = sum_k mean 1/2 ((mu(f_s) - f_t)^2 / v + ln v) over samples, channels and positions of stage
    k: the negative logarithm of a Gaussian that predicts the teacher's features from the student's. mu
    is three learnt 1x1 convolutions with ReLUs between, v = softplus(rho) + 1e-5 a learnt variance per
    channel, 5 at first. The larger of two maps is averaged down to the smaller one.

    Section 2 of the paper; the mean in place of its sum, the depth of mu, the first variance and beta
    are those of RepDistiller (Tian et al., ICLR 2020), which names the authors' code as its own source.
    """

    beta = 1.0

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        self.predictions = nn.ModuleList(
            Prediction(s.shape[1], t.shape[1]) for s, t in stage_pairs(student, teacher)
        )

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        pairs = zip(self.predictions, stage_pairs(student, teacher), strict=True)
        return torch.stack([predict(*at_one_size(s, t)) for predict, (s, t) in pairs]).sum()


class Prediction(nn.Module):
    """-ln q(t | s) per value, without its constant, for features of one height and width."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student, teacher, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher, teacher, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher, teacher, 1, bias=False),
        )
        rho = math.log(math.expm1(FIRST_VARIANCE - EPSILON))
        self.rho = nn.Parameter(torch.full((teacher,), rho))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over [N, C, H, W], a scalar."""
        variance = (softplus(self.rho) + EPSILON).view(1, -1, 1, 1)
        error = (self.mean(student) - teacher).square()
        return (0.5 * (error / variance + variance.log())).mean()
