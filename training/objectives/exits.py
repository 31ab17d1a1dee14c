"""Criteria for the objectives that use the exits' logits only."""

from __future__ import annotations

from torch import Tensor

from training.models.multi_exit import Outputs
from training.objectives import losses
from training.objectives.criterion import Batch, Criterion
from training.recipes.schema import ExitObjective


class ExitCriterion(Criterion):
    """One of `training.objectives.losses`, with the recipe's temperature and weights."""

    def __init__(self, objective: ExitObjective) -> None:
        super().__init__()
        self._objective = objective
        self.gradient_equilibrium = objective.gradient_equilibrium

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        objective, s, y = self._objective, student.logits, batch.labels
        temperature, alpha = objective.temperature, objective.alpha
        weights, smoothing = objective.exit_weights, objective.smoothing
        if objective.method == "cross_entropy":
            return losses.cross_entropy(s, y, weights, smoothing)
        if objective.method == "self_distillation":
            return losses.self_distillation(s, y, temperature, alpha, weights, smoothing)
        if teacher is None:
            raise ValueError(f"objective {objective.method} needs a teacher's outputs")
        if objective.method == "oto":
            return losses.oto(s, teacher.logits, y, temperature, alpha, weights, smoothing)
        # kd is mskd with one exit.
        return losses.mskd(s, teacher.logits, y, temperature, alpha, weights, smoothing)
