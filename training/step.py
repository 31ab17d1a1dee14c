"""One training step: from a batch of images to its loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from training.models.multi_exit import MultiExit, Normalize, Outputs
from training.objectives.criterion import Batch, Criterion
from training.speed import autocast


class Step(nn.Module):
    """Normalises the images, runs teacher and student, and returns the criterion's loss.

    Student and criterion are in train mode, the teacher stays in eval mode and gets no gradient. Where
    batches carry the teacher's cached logits, `teacher` is None.
    """

    def __init__(
        self,
        student: MultiExit,
        teacher: MultiExit | None,
        criterion: Criterion,
        normalize: Normalize,
        precision: str,
    ) -> None:
        super().__init__()
        self.student, self.teacher, self.criterion = student, teacher, criterion
        self.normalize = normalize
        self._precision = precision
        if teacher is not None:
            teacher.requires_grad_(False)

    def forward(
        self, images: Tensor, batch: Batch, side: int | None = None, preparing: bool = False
    ) -> Tensor:
        """The mean loss of `images` uint8 [N, H, W, 3], resized to `side` pixels if given."""
        inputs = self.normalize(images)
        if self.criterion.rotations:
            inputs = torch.cat([inputs.rot90(turns, (2, 3)) for turns in range(4)])
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        own = inputs
        if side is not None:
            own = interpolate(inputs, size=(side, side), mode="bilinear", antialias=True)
            if self.student.side is None:
                inputs = own
        teacher = self._teacher_outputs(inputs, batch)
        if not preparing:
            return self.criterion(self._run_student(own, side), teacher, batch)
        student = self._run_student(own, side) if self.criterion.prepares_student else None
        return self.criterion.prepare(student, teacher, batch)

    def _run_student(self, inputs: Tensor, side: int | None) -> Outputs:
        with autocast(self._precision, inputs.device):
            outputs = self.student.observe(
                inputs,
                side=side,
                preactivations=self.criterion.preactivations,
                gradient_equilibrium=self.criterion.gradient_equilibrium,
            )
        return _with_float_logits(outputs)

    def _teacher_outputs(self, inputs: Tensor, batch: Batch) -> Outputs | None:
        if batch.teacher_logits is not None:
            return Outputs(batch.teacher_logits, [])
        return self._run_teacher(inputs)

    @torch.no_grad()
    def _run_teacher(self, inputs: Tensor) -> Outputs | None:
        if self.teacher is None:
            return None
        with autocast(self._precision, inputs.device):
            outputs = self.teacher.observe(inputs, preactivations=self.criterion.preactivations)
        return _with_float_logits(outputs)

    def train(self, mode: bool = True) -> Step:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self


def _with_float_logits(outputs: Outputs) -> Outputs:
    """Logits in float32; features keep their precision, since few criteria read them."""
    logits = [z.float() for z in outputs.logits]
    return Outputs(logits, outputs.features, outputs.preactivations)
