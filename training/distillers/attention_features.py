"""AFD: attention-based feature distillation (Ji, Heo and Park, "Show, Attend and Distill", AAAI 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from training.distillers.base import Distiller
from training.distillers.features import unit
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective


class AttentionFeatures(Distiller):
    """L_m = sum_t mean_n sum_s a_ts mean (m_s - m_t)^2: every stage t of the teacher teaches every
    stage s of the student, weighted by a learnt attention.

    m is the mean over channels of the squared features, scaled to length 1 over positions; the
    student's is pooled to the teacher's height and width before. a_t = softmax_s((q_t . k_ts + p_t . p_s)
    / sqrt(128)), where q_t (linear, batch norm) and k_s (linear, batch norm, ReLU) come from features
    averaged over positions, k_ts from k_s by a linear map per t (batch norm), and p are learnt.

    From the paper's method section and its authors' code, whose weights these are. That code uses the
    features of every residual block, here those of every stage.
    """

    alpha = 0.9
    beta = 200.0
    dimensions = 128

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        d, count_s, count_t = self.dimensions, len(student.features), len(teacher.features)
        self.keys = nn.ModuleList(
            nn.Sequential(_normed(f.shape[1], d), nn.ReLU(inplace=True)) for f in student.features
        )
        self.queries = nn.ModuleList(_normed(f.shape[1], d) for f in teacher.features)
        self.keys_per_query = _normed(d, d * count_t)
        self.position_s = nn.Parameter(nn.init.xavier_normal_(torch.empty(count_s, d)))
        self.position_t = nn.Parameter(nn.init.xavier_normal_(torch.empty(count_t, d)))

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        energies = [_energy(f) for f in student.features]
        distances = []
        for t in map(_energy, teacher.features):
            fitted = [adaptive_avg_pool2d(s, (t.shape[2], t.shape[3])) for s in energies]
            student_maps = unit(torch.cat(fitted, dim=1).flatten(2), dim=2)
            distances.append((student_maps - unit(t.flatten(2), dim=2)).square().mean(2))
        attention = self.attention(student.features, teacher.features)
        return (attention * torch.stack(distances, dim=1)).sum((1, 2)).mean()

    def attention(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """a [N, T, S] for features [N, C, H, W] of S and T stages."""
        keys = torch.stack(
            [key(f.mean((2, 3))) for key, f in zip(self.keys, student, strict=True)], dim=1
        )
        queries = torch.stack(
            [query(f.mean((2, 3))) for query, f in zip(self.queries, teacher, strict=True)], dim=1
        )
        n, count_s, d = keys.shape
        per_query = self.keys_per_query(keys.flatten(0, 1)).view(n, count_s, -1, d)
        scores = torch.einsum("nstd,ntd->nts", per_query, queries)
        scores = scores + self.position_t @ self.position_s.T
        return (scores / d**0.5).softmax(dim=2)


def _energy(features: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 1, H, W]."""
    return features.square().mean(1, keepdim=True)


def _normed(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(cin, cout, bias=False), nn.BatchNorm1d(cout))
