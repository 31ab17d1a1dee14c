"""TSKD as guessed, on three exits, against the same sums in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.distillers.tiny import batch, distiller, shown
from training.models.multi_exit import Outputs

RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(3, 2, 4)) * 2
TEACHER = RNG.normal(size=(2, 4)) * 2
LABELS = [3, 1]


def exits() -> Outputs:
    return Outputs([torch.tensor(z, dtype=torch.float32).requires_grad_() for z in STUDENT], [])


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    p, q = softmax(teacher / 4), softmax(student / 4)
    return 16 * (p * np.log(p / q)).sum(-1).mean()


def test_every_exit_learns_from_labels_and_teacher_and_the_early_ones_from_the_last() -> None:
    teacher = shown(torch.tensor(TEACHER, dtype=torch.float32))
    student = exits()
    expected = 0.0
    for k, s in enumerate(STUDENT):
        expected += 0.4 * -np.log(softmax(s)[[0, 1], LABELS]).mean()
        expected += 0.3 * divergence(TEACHER, s)
        if k < 2:
            expected += 0.3 * divergence(STUDENT[2], s)
    value = distiller("tskd", student, teacher)(student, teacher, batch(LABELS)).item()
    assert value == pytest.approx(expected, rel=1e-5)


def test_the_teaching_exit_gets_no_gradient() -> None:
    teacher = shown(torch.tensor(TEACHER, dtype=torch.float32))
    student = exits()
    distiller("tskd", student, teacher).term(student, teacher, batch(LABELS)).backward()
    assert [z.grad is not None for z in student.logits] == [True, True, False]
