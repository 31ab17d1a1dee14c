"""AB: distillation of activation boundaries (Heo, Lee, Yun and Choi, AAAI 2019)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from training.distillers.base import Distiller, pair_stages
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective


class ActivationBoundaries(Distiller):
    """Before the training proper, the student learns which of the teacher's neurons are active:

        sum_l 2^(l - L) 3/1000 |rho(t_l, r_l(s_l))|_1 / N

    over the L stages, where s_l and t_l [N, C, H, W] are the values before a stage's last ReLU, r_l is
    a 1x1 convolution with batch norm (the identity where both networks are as wide), and with the
    margin m = 1

        rho(t, s) = (s + m)^2 where t <= 0 and s > -m,   (s - m)^2 where t > 0 and s <= m,   else 0.

    Afterwards L_m = 0: training goes on from those weights with cross-entropy alone. rho is the
    alternative loss of the paper; layer weights, factor and the absence of L_m afterwards are those of
    the authors' public code, the 30 epochs those of the comparison of Tian et al. 2020. A student's map
    of another size is pooled to the teacher's. Raises RecipeError for networks of unequal depth.
    """

    preparation = 30
    prepares_student = True
    preactivations = True
    margin = 1.0
    scale = 3e-3

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        pairs = pair_stages(objective, student.preactivations, teacher.preactivations)
        self.connectors = nn.ModuleList(_connector(s.shape[1], t.shape[1]) for s, t in pairs)

    def prepared(self) -> list[nn.Module]:
        return [self.connectors]

    def settle(self) -> None:
        super().settle()
        self.preactivations = False

    def preparing_term(self, student: Outputs | None, teacher: Outputs, batch: Batch) -> Tensor:
        assert student is not None
        loss = student.logits[-1].new_zeros(())
        pairs = zip(student.preactivations, teacher.preactivations, strict=True)
        for stage, (connect, (s, t)) in enumerate(zip(self.connectors, pairs, strict=True), 1):
            s = adaptive_avg_pool2d(connect(s), (t.shape[2], t.shape[3]))
            loss = loss + 2.0 ** (stage - len(self.connectors)) * self._boundary_loss(s, t)
        return self.scale * loss / len(batch.labels)

    def _boundary_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        # One ReLU per case: it is zero exactly where the case's condition on s fails.
        off = (student + self.margin).relu().square() * (teacher <= 0)
        on = (self.margin - student).relu().square() * (teacher > 0)
        return (off + on).sum()

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return student.logits[-1].new_zeros(())


def _connector(cin: int, cout: int) -> nn.Module:
    if cin == cout:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout))
