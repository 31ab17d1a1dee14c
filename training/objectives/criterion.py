"""What the loop minimises: a criterion sees both networks' outputs for a batch and gives its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from training.models.multi_exit import MultiExit, Outputs


@dataclass(frozen=True)
class Batch:
    """What is known of a batch besides its images: labels int64 [N], and each sample's position in
    the training split, int64 [N]."""

    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class Setting:
    """What a criterion is built for: the student, its teacher, and the labels of the training split,
    int64 [samples]; all of it on the CPU."""

    student: MultiExit
    teacher: MultiExit | None
    labels: Tensor


class Criterion(nn.Module):
    """A loss, with whatever is trained or remembered beside the student (adapters, memory banks).

    `rotations`: the networks see, behind the N images, the same images turned by 90, 180 and 270
    degrees, and outputs have 4 N rows in that order. `preactivations`: outputs carry them.
    `gradient_equilibrium`: the student's gradients are rescaled per exit. `preparation`: epochs of
    minimising `prepare` over the modules of `prepared` before the training proper; over the student
    too if it `prepares_student`. Parameters, buffers and extra state are kept when a run is resumed.
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
        """The loss of one batch while the method is being prepared. `student` is None, and its
        network left alone, unless the criterion `prepares_student`."""
        raise NotImplementedError

    def prepared(self) -> list[nn.Module]:
        """The criterion's modules that the preparation trains. Nothing changes them afterwards."""
        return []

    def settle(self) -> None:
        """End the preparation: what it trained gets no gradient any more and stays in eval mode."""
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
