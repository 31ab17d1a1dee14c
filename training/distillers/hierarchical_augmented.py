"""HSAKD: hierarchical self-supervised augmented knowledge distillation (Yang et al., IJCAI 2021)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.distillers.base import Distiller, pair_stages
from training.models.heads import LinearHead
from training.models.multi_exit import MultiExit, Outputs
from training.objectives.criterion import Batch, Setting
from training.objectives.losses import soft_target
from training.recipes.schema import DistillerObjective


class HierarchicalAugmented(Distiller):
    """L_m = T^2 KL(p_T(t) || p_T(s)) + sum_l T^2 KL(p_T(q_l^t) || p_T(q_l^s)), T = 3,

    beside the cross-entropy of the upright images. Divergences are means over the images in all four
    rotations. q_l [4N, 4C] are the logits of an auxiliary head on stage l for the joint label 4 y + j
    of class y and rotation j. The student's heads are trained with it and dropped in the end.

    Before the training proper, the teacher's heads are trained on the frozen teacher with
    sum_l CE(4 y + j, q_l). The paper's equations of section 3; all weights 1, T and 100 epochs as in the
    authors' public code for a frozen teacher.

    As in that code, a head is a copy of the network's later stages with new weights, and a linear
    layer. On the last stage it is a copy of that stage without stride, behind a 1x1 convolution to the
    copy's input channels; the authors widen its first block instead. Their VGG heads are on blocks 1, 2,
    3 and 5, as the stages here. Heads run in float32.
    Raises RecipeError for networks of unequal depth.
    """

    temperature = 3.0
    preparation = 100
    rotations = True

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        pair_stages(objective, student.features, teacher.features)
        assert setting.teacher is not None
        self.student_heads = _auxiliary_heads(setting.student, student)
        self.teacher_heads = _auxiliary_heads(setting.teacher, teacher)

    def prepared(self) -> list[nn.Module]:
        return [self.teacher_heads]

    def preparing_term(self, student: Outputs | None, teacher: Outputs, batch: Batch) -> Tensor:
        joint = torch.cat([4 * batch.labels + rotation for rotation in range(4)])
        losses = [cross_entropy(q, joint) for q in _head_logits(self.teacher_heads, teacher)]
        return torch.stack(losses).sum()

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        with torch.no_grad():
            teacher_logits = [teacher.logits[-1], *_head_logits(self.teacher_heads, teacher)]
        student_logits = [student.logits[-1], *_head_logits(self.student_heads, student)]
        pairs = zip(student_logits, teacher_logits, strict=True)
        return torch.stack([soft_target(s, t, self.temperature) for s, t in pairs]).sum()


def _head_logits(heads: nn.ModuleList, outputs: Outputs) -> list[Tensor]:
    return [head(x) for head, x in zip(heads, outputs.features, strict=True)]


def _auxiliary_heads(network: MultiExit, outputs: Outputs) -> nn.ModuleList:
    """One head for each stage of `network`, with new weights; `outputs` are of any batch."""
    classes = 4 * outputs.logits[-1].shape[1]
    *_, before, last = (features.shape[1] for features in outputs.features)
    last_stage = copy.deepcopy(network.stages[-1])
    last_stage.apply(_without_stride)
    narrow = [nn.Conv2d(last, before, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
    stages = list(network.stages)
    bodies = [copy.deepcopy(stages[k:]) for k in range(1, len(stages))]
    bodies.append([*narrow, last_stage])
    heads = [nn.Sequential(*body, LinearHead(last, classes)) for body in bodies]
    return nn.ModuleList(heads).apply(_reset_weights).requires_grad_()


def _without_stride(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
    if isinstance(module, nn.MaxPool2d):
        module.kernel_size = module.stride = 1


def _reset_weights(module: nn.Module) -> None:
    """New weights, initialised as in a new network."""
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
        module.reset_parameters()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
