"""TSKD: distillation from a teacher and from oneself (Applied Intelligence 2022)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from training.distillers.base import Distiller
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch
from training.objectives.losses import soft_target


class TeacherAndSelf(Distiller):
    """A guess: sum_k [gamma CE(y, s_k) + alpha T^2 KL(p_T(t) || p_T(s_k))]
    + beta sum_{k<K} T^2 KL(p_T(s_K) || p_T(s_k)), without gradient through the teaching s_K.

    The method's formula is not public. Its abstract and introduction (doi 10.1007/s10489-022-03486-4)
    say that several exits learn from a teacher and from the student's own output, and that they vote.
    The sum above, its weights (0.4, 0.3, 0.3) and T = 4 are our reading of that, not a reproduction.
    It is the only distiller here with several exits; compare the accuracy of its ensemble.
    """

    gamma = 0.4
    alpha = 0.3
    beta = 0.3

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        if teacher is None:
            raise ValueError("a distiller needs a teacher's outputs")
        loss = self.beta * self.term(student, teacher, batch)
        for s in student.logits:
            loss = loss + self.gamma * cross_entropy(s, batch.labels)
            loss = loss + self.alpha * soft_target(s, teacher.logits[-1], self.temperature)
        return loss

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        *early, last = student.logits
        loss = last.new_zeros(())
        for s in early:
            loss = loss + soft_target(s, last.detach(), self.temperature)
        return loss
