"""FitNet: hints for thin deep nets (Romero et al., ICLR 2015)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from training.distillers.base import Distiller
from training.distillers.features import at_one_size
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective


class FitNet(Distiller):
    """L_m = mean (r(f_s) - f_t)^2 over samples, channels and positions, with f the second stage's
    features and r a learnt convolution, batch norm and ReLU.

    Section 2.2 and equation 3 of the paper, there with a factor 1/2 and minimised before the training
    proper. The mean, the stage, r, beta and the joint training are those of RepDistiller
    (Tian et al., ICLR 2020). Raises ValueError if a network has one stage only.
    """

    beta = 100.0
    stage = 2

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        for name, outputs in (("student", student), ("teacher", teacher)):
            if len(outputs.features) < self.stage:
                raise ValueError(
                    f"fitnet compares stage {self.stage}, but the {name} has "
                    f"{len(outputs.features)} stage."
                )
        s, t = student.features[self.stage - 1], teacher.features[self.stage - 1]
        self.regressor = nn.Sequential(
            _convolution(s, t), nn.BatchNorm2d(t.shape[1]), nn.ReLU(inplace=True)
        )

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        guided = self.regressor(student.features[self.stage - 1])
        return mse_loss(*at_one_size(guided, teacher.features[self.stage - 1]))


def _convolution(student: Tensor, teacher: Tensor) -> nn.Module:
    """From the student's channels to the teacher's; halves or doubles the side if needed."""
    cin, cout = student.shape[1], teacher.shape[1]
    student_side, teacher_side = student.shape[2], teacher.shape[2]
    if student_side == 2 * teacher_side:
        return nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False)
    if 2 * student_side == teacher_side:
        return nn.ConvTranspose2d(cin, cout, 4, stride=2, padding=1, bias=False)
    return nn.Conv2d(cin, cout, 1, bias=False)
