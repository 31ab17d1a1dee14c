"""CRD: contrastive representation distillation (Tian, Krishnan and Isola, ICLR 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.distillers.base import Distiller
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective

EPSILON = 1e-7


class ContrastiveRepresentation(Distiller):
    """L_m = nce(e_s, B_t) + nce(e_t, B_s): given an image's embedding by one network, its embedding by
    the other network is distinguished from those of `negatives` other images.

        nce(e, B) = -mean_i [log D(i, i) + sum_j log(1 - D(i, j))],
        D(i, j) = P / (P + n / M),  P = exp(e_i . b_j / tau) / Z

    with e a linear map of the pooled last features to 128 values, scaled to length 1; B the memory
    bank of such embeddings, one row for each of the M training images; n negatives j of other classes
    than i's; and Z the constant that makes the first batch's mean P equal 1 / M. After each batch its
    rows become normalize(momentum b + (1 - momentum) e). Equation 18 of the paper and its section on
    memory banks; figures as in the authors' public code, where the split is large enough for n.

    Negatives are drawn without replacement for every batch. Unlike in that code, all images of a batch
    share one random order of the split and use its first n images of other classes: the expected loss
    is the same, without gathering vectors for each image.
    """

    beta = 0.8
    negatives = 16384
    tau = 0.07
    momentum = 0.5
    width = 128

    labels: Tensor
    student_bank: Tensor
    teacher_bank: Tensor
    student_scale: Tensor
    teacher_scale: Tensor

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        self.student_embed = nn.Linear(student.embedding.shape[1], self.width)
        self.teacher_embed = nn.Linear(teacher.embedding.shape[1], self.width)
        samples, largest = len(setting.labels), int(setting.labels.bincount().max())
        self.negatives = min(self.negatives, samples - largest)
        # So many hold `negatives` of other classes, even if all of the sample's class come first.
        self._drawn = self.negatives + largest
        self.register_buffer("labels", setting.labels, persistent=False)
        bound = math.sqrt(3 / self.width)
        for side in ("student", "teacher"):
            bank = torch.empty(samples, self.width).uniform_(-bound, bound)
            self.register_buffer(f"{side}_bank", bank)
            self.register_buffer(f"{side}_scale", torch.zeros(()))  # Z; 0 before the first batch
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))

    def get_extra_state(self) -> Tensor:
        """The state of the generator of negatives, so a resumed run draws the same."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu())

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        s = normalize(self.student_embed(student.embedding), dim=1)
        t = normalize(self.teacher_embed(teacher.embedding), dim=1)
        order = torch.randperm(len(self.labels), generator=self._generator)[: self._drawn]
        order = order.to(self.labels.device)
        other = self.labels[order] != batch.labels[:, None]
        chosen = other & (other.cumsum(1) <= self.negatives)
        loss = self._nce(s, self.teacher_bank, self.student_scale, batch.index, order, chosen)
        loss = loss + self._nce(
            t, self.student_bank, self.teacher_scale, batch.index, order, chosen
        )
        self._update_bank(self.student_bank, s, batch.index)
        self._update_bank(self.teacher_bank, t, batch.index)
        return loss

    def _nce(
        self, e: Tensor, bank: Tensor, scale: Tensor, index: Tensor, order: Tensor, chosen: Tensor
    ) -> Tensor:
        """nce(e, bank) of the class docstring; `chosen` marks the negatives of each image in `order`."""
        positive = ((e * bank[index]).sum(1) / self.tau).exp()
        negative = (e @ bank[order].T / self.tau).exp()
        with torch.no_grad():
            mean = (positive + (negative * chosen).sum(1)).mean() / (1 + self.negatives)
            scale.copy_(torch.where(scale > 0, scale, mean * len(bank)))
        noise = self.negatives / len(bank)
        positive, negative = positive / scale, negative / scale
        true = (positive / (positive + noise + EPSILON)).log()
        false = (noise / (negative + noise + EPSILON)).log()
        return -(true + (false * chosen).sum(1)).mean()

    @torch.no_grad()
    def _update_bank(self, bank: Tensor, e: Tensor, index: Tensor) -> None:
        updated = self.momentum * bank[index] + (1 - self.momentum) * e
        bank[index] = normalize(updated, dim=1)
