"""SSKD: knowledge distillation meets self-supervision (Xu, Liu, Li and Loy, ECCV 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, normalize

from training.distillers.base import Distiller
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.objectives.losses import soft_target
from training.recipes.schema import DistillerObjective


class SelfSupervision(Distiller):
    """L_m = 2.7 T^2 KL(p_T(t) || p_T(s)) on the images turned by 90, 180 and 270 degrees
    + 10 tau^2 KL(p_tau(A_t) || p_tau(A_s)), tau = 0.5,

    beside 0.1 CE + 0.9 KD of the upright images. A [3N, N] holds the cosines between the turned images
    and the upright ones, each projected by two linear layers from the pooled last features. A row of A
    is right where the image's own upright copy is the most similar one. The second divergence is the
    mean over all rows that are right for the teacher and the 75 % of its wrong ones in which the own
    copy ranks best (selective transfer); the first keeps all rows.

    Before the training proper, the teacher's projection learns to find each turned image's upright
    copy (cross-entropy of A, no temperature). The paper's equations of section 3; weights, temperatures
    and 60 epochs as in the authors' public code, which trains without mirrored images.
    """

    gamma = 0.1
    alpha = 0.9
    preparation = 60
    rotations = True
    turned = 2.7
    contrast = 10.0
    contrast_temperature = 0.5
    kept_wrong = 0.75

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        self.student_projection = _projection(student.embedding.shape[1])
        self.teacher_projection = _projection(teacher.embedding.shape[1])

    def prepared(self) -> list[nn.Module]:
        return [self.teacher_projection]

    def preparing_term(self, student: Outputs | None, teacher: Outputs, batch: Batch) -> Tensor:
        similarities = _similarities(self.teacher_projection(teacher.embedding))
        return cross_entropy(similarities, _own(similarities))

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        upright = len(batch.labels)
        s, t = student.logits[-1][upright:], teacher.logits[-1][upright:]
        student_similarities = _similarities(self.student_projection(student.embedding))
        with torch.no_grad():
            teacher_similarities = _similarities(self.teacher_projection(teacher.embedding))
            kept = self._kept(teacher_similarities)
        divergences = self._divergences(student_similarities, teacher_similarities)
        contrast = (divergences * kept).sum() / kept.sum()
        return self.turned * soft_target(s, t, self.temperature) + self.contrast * contrast

    def _kept(self, similarities: Tensor) -> Tensor:
        """Which rows of the teacher's similarities [3N, N] are transferred: bool [3N]."""
        own = similarities.gather(1, _own(similarities)[:, None])
        rank = (similarities > own).sum(1)
        wrong = (rank > 0).sum()
        count = len(rank) - wrong + (wrong * self.kept_wrong).floor()
        position = rank.argsort(stable=True).argsort()
        return position < count

    def _divergences(self, student: Tensor, teacher: Tensor) -> Tensor:
        """tau^2 KL of each row."""
        tau = self.contrast_temperature
        q, p = log_softmax(student / tau, dim=1), log_softmax(teacher / tau, dim=1)
        return tau**2 * (p.exp() * (p - q)).sum(1)


def _projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width))


def _similarities(projected: Tensor) -> Tensor:
    """Cosines of the last 3N rows of [4N, D] with the first N: [3N, N]."""
    directions = normalize(projected, dim=1)
    upright = len(directions) // 4
    return directions[upright:] @ directions[:upright].T


def _own(similarities: Tensor) -> Tensor:
    """The column of each row's own upright copy: int64 [3N]."""
    return torch.arange(similarities.shape[1], device=similarities.device).repeat(3)
