"""The base class of all distillers: the methods that the paper's tables compare with its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from training.errors import RecipeError
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Criterion, Setting
from training.objectives.losses import soft_target
from training.recipes.schema import DistillerObjective


class Distiller(Criterion):
    """gamma CE(y, s) + alpha T^2 KL(p_T(t) || p_T(s)) + beta L_m, for a student with one exit.

    A subclass implements L_m as `term` and sets its source's weights as class attributes: `gamma`,
    `alpha`, `beta` and the temperature T. A recipe can set each. "+KD" in the literature is alpha = 1.
    """

    gamma = 1.0
    alpha = 0.0
    beta = 1.0
    temperature = 4.0

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        """`student` and `teacher` are outputs of any batch; only their shapes are used.

        Raises RecipeError if the recipe sets a preparation and the method has none.
        """
        super().__init__()
        if objective.preparation is not None and not self.preparation:
            raise RecipeError(f"method {objective.method} has no preparation: leave it out.")
        for name in ("gamma", "alpha", "beta", "temperature", "preparation"):
            value = getattr(objective, name)
            if value is not None:
                setattr(self, name, value)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        if teacher is None:
            raise ValueError("a distiller needs a teacher's outputs")
        upright = len(batch.labels)  # rotated copies, if any, follow
        s, t = student.logits[-1][:upright], teacher.logits[-1][:upright]
        loss = self.beta * self.term(student.float(), teacher.float(), batch)
        if self.gamma:
            loss = loss + self.gamma * cross_entropy(s, batch.labels)
        if self.alpha:
            loss = loss + self.alpha * soft_target(s, t, self.temperature)
        return loss

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """L_m, the method's own part of the loss, a scalar. Outputs are in float32."""
        raise NotImplementedError

    def prepare(self, student: Outputs | None, teacher: Outputs | None, batch: Batch) -> Tensor:
        if teacher is None:
            raise ValueError("a distiller needs a teacher's outputs")
        return self.preparing_term(student.float() if student else None, teacher.float(), batch)

    def preparing_term(self, student: Outputs | None, teacher: Outputs, batch: Batch) -> Tensor:
        """The loss of the preparation, a scalar. Outputs are in float32;
        `student` is None unless the method `prepares_student`."""
        raise NotImplementedError


def pair_stages(
    objective: DistillerObjective, student: Sequence[Tensor], teacher: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """The outputs of both networks' stages, paired stage by stage.

    Raises RecipeError if the networks differ in their number of stages.
    """
    if len(student) != len(teacher):
        raise RecipeError(
            f"method {objective.method} pairs stages one to one, but the student has {len(student)} "
            f"and the teacher {len(teacher)}."
        )
    return list(zip(student, teacher, strict=True))
