"""From a recipe's objective to its criterion."""

from __future__ import annotations

from training.distillers import DISTILLERS
from training.models.multi_exit import Outputs
from training.objectives.criterion import Criterion, Setting
from training.objectives.exits import ExitCriterion
from training.recipes.schema import DistillerObjective, Objective


def build_criterion(
    objective: Objective, student: Outputs, teacher: Outputs | None, setting: Setting
) -> Criterion:
    """The criterion of `objective`, on the CPU.

    `student` and `teacher` are outputs of any batch: comparators size their adapters by the shapes.
    Raises RecipeError if the networks do not suit the objective.
    """
    if not isinstance(objective, DistillerObjective):
        return ExitCriterion(objective)
    if teacher is None:
        raise ValueError(f"objective {objective.method} needs a teacher's outputs")
    return DISTILLERS[objective.method](objective, student, teacher, setting)
