"""What the loop minimises: a criterion sees both networks' outputs for a batch and gives its loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.models.multi_exit import MultiExit, Outputs


@dataclass(frozen=True)
class Batch:
    """What is known of a batch besides its images: labels int64 [N], and each sample's position in
    the training split, int64 [N]."""

    labels: Tensor
    index: Tensor


class Criterion(nn.Module):
    """A loss, with whatever is trained or remembered beside the student (adapters, memory banks).

    `rotations`: the networks see, behind the N images, the same images turned by 90, 180 and 270
    degrees, and outputs have 4 N rows in that order. `preactivations`: outputs carry them.
    `gradient_equilibrium`: the student's gradients are rescaled per exit. `preparation`: epochs of
    minimising `prepare` over `prepared_parameters` before the training proper.
    """

    rotations = False
    preactivations = False
    gradient_equilibrium = False
    preparation = 0

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar. `teacher` is None for a run without one."""
        raise NotImplementedError

    def prepare(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """The loss of one batch while the method is being prepared."""
        raise NotImplementedError

    def prepared_parameters(self, student: MultiExit) -> list[nn.Parameter]:
        """What the preparation trains."""
        raise NotImplementedError
