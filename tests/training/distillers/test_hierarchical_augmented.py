"""HSAKD with identity heads, against sums in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.distillers.tiny import batch, distiller, network, shown, vectors
from training.distillers.hierarchical_augmented import HierarchicalAugmented
from training.errors import RecipeError
from training.models.multi_exit import Outputs

RNG = np.random.default_rng(0)
# Two images in four rotations; two classes, and two stages with 4 x 2 joint logits.
STUDENT_LOGITS, TEACHER_LOGITS = RNG.normal(size=(2, 8, 2)) * 2
STUDENT_STAGES, TEACHER_STAGES = RNG.normal(size=(2, 2, 8, 8)) * 2
LABELS = [1, 0]


def seen(logits: np.ndarray, stages: np.ndarray) -> Outputs:
    features = [vectors(stage.tolist()) for stage in stages]
    return shown(torch.tensor(logits, dtype=torch.float32), features)


STUDENT, TEACHER = seen(STUDENT_LOGITS, STUDENT_STAGES), seen(TEACHER_LOGITS, TEACHER_STAGES)


def method() -> HierarchicalAugmented:
    built = distiller("hsakd", STUDENT, TEACHER)
    assert isinstance(built, HierarchicalAugmented)
    built.student_heads = nn.ModuleList([nn.Flatten(), nn.Flatten()])
    built.teacher_heads = nn.ModuleList([nn.Flatten(), nn.Flatten()])
    return built


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    p, q = softmax(teacher / 3), softmax(student / 3)
    return 9 * (p * np.log(p / q)).sum(-1).mean()


def test_the_loss_sums_cross_entropy_kd_and_the_joint_divergence_of_every_stage() -> None:
    ce = -np.log(softmax(STUDENT_LOGITS[:2])[[0, 1], LABELS]).mean()
    kd = divergence(TEACHER_LOGITS, STUDENT_LOGITS)
    stages = sum(map(divergence, TEACHER_STAGES, STUDENT_STAGES))
    value = method()(STUDENT, TEACHER, batch(LABELS)).item()
    assert value == pytest.approx(ce + kd + stages, rel=1e-5)


def test_the_preparation_is_cross_entropy_of_class_and_rotation_together() -> None:
    joint = [
        4,
        0,
        5,
        1,
        6,
        2,
        7,
        3,
    ]  # 4 y + j, both images upright first, then both turned by 90 ...
    losses = [-np.log(softmax(stage)[range(8), joint]).mean() for stage in TEACHER_STAGES]
    value = method().prepare(None, TEACHER, batch(LABELS)).item()
    assert value == pytest.approx(sum(losses), rel=1e-5)


def test_a_head_is_a_copy_of_the_later_stages_with_new_weights_and_four_times_the_classes() -> None:
    images = torch.randn(3, 3, 16, 16)
    tiny = network()
    outputs = tiny.observe(images)
    built = distiller("hsakd", outputs, outputs)
    assert isinstance(built, HierarchicalAugmented)

    def size(*modules: nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    linear = 32 * 8 + 8
    stages = list(tiny.stages)
    narrow = 32 * 16 + 2 * 16  # a 1x1 convolution from the last width to the one before, batch norm
    expected = [size(*stages[1:]), size(*stages[2:]), size(stages[3]), narrow + size(stages[3])]
    assert [size(head) - linear for head in built.student_heads] == expected
    for head, features in zip(built.student_heads, outputs.features, strict=True):
        assert head(features).shape == (3, 8)
    originals = {p.data_ptr() for p in tiny.parameters()}
    assert originals.isdisjoint(p.data_ptr() for p in built.parameters())


def test_the_last_stages_head_keeps_the_maps_size() -> None:
    outputs = network().observe(torch.randn(1, 3, 64, 64))
    built = distiller("hsakd", outputs, outputs)
    assert isinstance(built, HierarchicalAugmented)
    *body, _ = built.student_heads[-1]
    assert nn.Sequential(*body)(outputs.features[-1]).shape == outputs.features[-1].shape


def test_networks_of_unequal_depth_are_refused() -> None:
    deeper = seen(TEACHER_LOGITS, np.concatenate([TEACHER_STAGES, TEACHER_STAGES]))
    with pytest.raises(RecipeError, match="student has 2 and the teacher 4"):
        distiller("hsakd", STUDENT, deeper)
