"""Criteria: the loss of a batch, from both networks' outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from training.models.multi_exit import MultiExit, Outputs


@dataclass(frozen=True)
class Batch:
    """The labels of a batch, int64 [N], and each sample's index in the training split, int64 [N].

    `teacher_logits` are the cached ones of a view, float32 [N, C] for every exit of the teacher; None
    where the teacher runs in the step, or there is none.
    """

    labels: Tensor
    index: Tensor
    teacher_logits: list[Tensor] | None = None


@dataclass(frozen=True)
class Setting:
    """What a criterion is built from: the student, its teacher, and the labels of the training split,
    int64 [samples]; all on the CPU."""

    student: MultiExit
    teacher: MultiExit | None
    labels: Tensor


class Criterion(nn.Module):
    """A loss, with the modules and buffers it needs beside the student (adapters, memory banks).

    `rotations`: the networks also get the N images rotated by 90, 180 and 270 degrees, and outputs
    have 4 N rows in that order. `preactivations`: outputs include them. `gradient_equilibrium`: the
    student's gradients are rescaled per exit. `preparation`: epochs of minimising `prepare` over the
    modules of `prepared` before the training proper, and over the student if it `prepares_student`.
    Parameters, buffers and extra state are saved and restored with a run.
    """

    rotations = False
    preactivations = False
    gradient_equilibrium = False
    preparation = 0
    prepares_student = False
    _settled = False

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar. `teacher` is None for a run without one."""
        raise NotImplementedError

    def prepare(self, student: Outputs | None, teacher: Outputs | None, batch: Batch) -> Tensor:
        """The loss of one batch during the preparation. `student` is None, and the student is not run,
        unless the criterion `prepares_student`."""
        raise NotImplementedError

    def prepared(self) -> list[nn.Module]:
        """The criterion's modules that the preparation trains; they are frozen afterwards."""
        return []

    def settle(self) -> None:
        """End the preparation: freeze the modules it trained and keep them in eval mode."""
        self._settled = True
        for module in self.prepared():
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self._settled:
            for module in self.prepared():
                module.eval()
        return self
