"""CC: correlation congruence (Peng et al., ICCV 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from training.distillers.base import Distiller
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective


class CorrelationCongruence(Distiller):
    """L_m = 1/(N - 1) sum_{i<N} d_i . d_{i+1}, where d_i = |e_s - e_t| of sample i and e are learnt
    linear maps of the embeddings to 128 dimensions. It is 0 in a batch of one.

    This is the form in RepDistiller (Tian et al., ICLR 2020), there called the authors' own code, with
    its beta. It penalises neighbours in the batch that differ in the same dimensions. The paper (section
    3) compares matrices of kernel values instead.
    """

    beta = 0.02
    dimensions = 128

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        self.embed_student = nn.Linear(student.embedding.shape[1], self.dimensions)
        self.embed_teacher = nn.Linear(teacher.embedding.shape[1], self.dimensions)

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        s, t = self.embed_student(student.embedding), self.embed_teacher(teacher.embedding)
        difference = (s - t).abs()
        return (difference[:-1] * difference[1:]).sum() / max(len(difference) - 1, 1)
