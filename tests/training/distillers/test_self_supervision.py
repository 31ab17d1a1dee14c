"""SSKD with three images whose projections are unit vectors at chosen angles.

The teacher sees the upright images at 0, 90 and 180 degrees and the nine turned ones as in TURNED. Four
of those are nearer another upright image than their own: rows 3 (own copy third), 5, 6 and 7 (own copy
second). Three quarters of the four are kept, so row 3 is left out.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.distillers.tiny import batch, distiller, shown, vectors
from training.distillers.self_supervision import SelfSupervision
from training.models.multi_exit import Outputs

UPRIGHT = [0, 90, 180]
TURNED = [10, 80, 170, 170, 100, 100, 60, 20, 175]
STUDENT_ANGLES = [5, 70, 200, 30, 60, 150, 90, 90, 90, 45, 100, 160]
LABELS = [0, 1, 1]
RNG = np.random.default_rng(0)
STUDENT_LOGITS, TEACHER_LOGITS = RNG.normal(size=(2, 12, 2)) * 2


def seen(angles: list[int], logits: np.ndarray) -> Outputs:
    radians = np.radians(angles)
    directions = np.stack([np.cos(radians), np.sin(radians)], 1)
    return shown(torch.tensor(logits, dtype=torch.float32), [vectors((2 * directions).tolist())])


STUDENT = seen(STUDENT_ANGLES, STUDENT_LOGITS)
TEACHER = seen([*UPRIGHT, *TURNED], TEACHER_LOGITS)


def method() -> SelfSupervision:
    built = distiller("sskd", STUDENT, TEACHER)
    assert isinstance(built, SelfSupervision)
    built.student_projection = built.teacher_projection = nn.Sequential()
    return built


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def divergence(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1).mean()


def cosines(angles: list[int]) -> np.ndarray:
    return np.cos(np.radians(np.subtract.outer(angles[3:], angles[:3])))


def test_the_term_uses_rotated_images_and_the_better_part_of_the_similarities() -> None:
    turned = divergence(TEACHER_LOGITS[3:], STUDENT_LOGITS[3:], 4.0)
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    similarities = cosines([*UPRIGHT, *TURNED]), cosines(STUDENT_ANGLES)
    contrast = divergence(*(s[kept] for s in similarities), temperature=0.5)
    value = method().term(STUDENT, TEACHER, batch(LABELS)).item()
    assert value == pytest.approx(2.7 * turned + 10 * contrast, rel=1e-4)


def test_the_loss_adds_cross_entropy_and_kd_of_the_upright_images() -> None:
    built = method()
    ce = -np.log(softmax(STUDENT_LOGITS[:3])[range(3), LABELS]).mean()
    kd = divergence(TEACHER_LOGITS[:3], STUDENT_LOGITS[:3], 4.0)
    term = built.term(STUDENT, TEACHER, batch(LABELS)).item()
    value = built(STUDENT, TEACHER, batch(LABELS)).item()
    assert value == pytest.approx(0.1 * ce + 0.9 * kd + term, rel=1e-4)


def test_the_preparation_finds_each_rotated_images_upright_copy() -> None:
    likelihoods = softmax(cosines([*UPRIGHT, *TURNED]))[range(9), [0, 1, 2] * 3]
    value = method().prepare(None, TEACHER, batch(LABELS)).item()
    assert value == pytest.approx(-np.log(likelihoods).mean(), rel=1e-5)
