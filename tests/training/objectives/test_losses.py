"""The objectives against numbers computed by hand.

Student logits (0, ln 3) give p = (1/4, 3/4) at T = 1 and (1, sqrt 3) / (1 + sqrt 3) at T = 2; teacher
logits (0, 0) give (1/2, 1/2) at any T. Hence, with label 1:

    CE = ln(4/3)                                             = 0.287682
    KL at T = 1: (ln 2 + ln 2/3) / 2                         = 0.143841
    KL at T = 2: (ln 1.366025 + ln 0.788675) / 2 = 0.037253; times T^2 = 0.149010
"""

from __future__ import annotations

import math

import pytest
import torch

from training.objectives.losses import (
    cross_entropy,
    kd,
    mskd,
    oto,
    self_distillation,
    soft_target,
)

STUDENT = torch.tensor([[0.0, math.log(3.0)]])
UNIFORM = torch.tensor([[0.0, 0.0]])
LABEL = torch.tensor([1])
CE = math.log(4 / 3)
KL1 = 0.5 * (math.log(2) + math.log(2 / 3))
KL2 = 0.5 * (math.log((1 + math.sqrt(3)) / 2) + math.log((1 + math.sqrt(3)) / (2 * math.sqrt(3))))


def test_soft_target_is_the_divergence_of_the_teacher_from_the_student() -> None:
    assert soft_target(STUDENT, UNIFORM, 1.0).item() == pytest.approx(KL1, abs=1e-6)
    assert pytest.approx(0.143841, abs=1e-6) == KL1


def test_soft_target_carries_the_square_of_the_temperature() -> None:
    assert soft_target(STUDENT, UNIFORM, 2.0).item() == pytest.approx(4 * KL2, abs=1e-6)
    assert pytest.approx(0.149010, abs=1e-5) == 4 * KL2


def test_soft_target_averages_over_samples_and_sums_over_classes() -> None:
    both = torch.cat([STUDENT, UNIFORM])
    value = soft_target(both, torch.cat([UNIFORM, UNIFORM]), 1.0).item()
    assert value == pytest.approx(KL1 / 2, abs=1e-6)


def test_kd_mixes_labels_and_teacher_by_alpha() -> None:
    value = kd(STUDENT, UNIFORM, LABEL, temperature=2.0, alpha=0.25).item()
    assert value == pytest.approx(0.75 * CE + 0.25 * 4 * KL2, abs=1e-6)


def test_cross_entropy_sums_over_exits() -> None:
    value = cross_entropy([STUDENT, UNIFORM], LABEL).item()
    assert value == pytest.approx(CE + math.log(2), abs=1e-6)


def test_mskd_teaches_every_exit_with_the_teachers_last_output() -> None:
    ignored = torch.tensor([[5.0, -5.0]])
    value = mskd([STUDENT, STUDENT], [ignored, UNIFORM], LABEL, temperature=2.0, alpha=1.0).item()
    assert value == pytest.approx(2 * 4 * KL2, abs=1e-6)


def test_oto_teaches_exit_k_with_the_teachers_exit_k() -> None:
    value = oto([STUDENT, UNIFORM], [UNIFORM, STUDENT], LABEL, temperature=1.0, alpha=1.0).item()
    reverse = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert value == pytest.approx(KL1 + reverse, abs=1e-6)


def test_oto_needs_as_many_teacher_exits() -> None:
    with pytest.raises(ValueError, match="zip"):
        oto([STUDENT, STUDENT], [UNIFORM], LABEL, temperature=1.0, alpha=1.0)


def test_the_teacher_gets_no_gradient_but_every_student_exit_does() -> None:
    students = [STUDENT.clone().requires_grad_() for _ in range(3)]
    oto(students, [UNIFORM] * 3, LABEL, temperature=3.0, alpha=0.5).backward()
    assert all(s.grad is not None and s.grad.abs().sum() > 0 for s in students)


def test_self_distillation_teaches_the_early_exits_with_the_last_ones_output() -> None:
    value = self_distillation([STUDENT, UNIFORM], LABEL, temperature=2.0, alpha=0.25).item()
    assert value == pytest.approx(0.75 * CE + 0.25 * 4 * KL2 + math.log(2), abs=1e-6)


def test_in_self_distillation_the_last_exit_learns_from_the_labels_alone() -> None:
    early, last = STUDENT.clone().requires_grad_(), UNIFORM.clone().requires_grad_()
    self_distillation([early, last], LABEL, temperature=2.0, alpha=1.0).backward()
    assert early.grad is not None
    assert last.grad is not None
    assert last.grad.tolist() == [[0.5, -0.5]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (cross_entropy([STUDENT, UNIFORM], LABEL, [2.0, 0.5]), 2 * CE + 0.5 * math.log(2)),
        (mskd([STUDENT, STUDENT], [UNIFORM], LABEL, 2.0, 1.0, [3.0, 0.0]), 3 * 4 * KL2),
        (
            self_distillation([STUDENT, UNIFORM], LABEL, 2.0, 1.0, [0.5, 2.0]),
            0.5 * 4 * KL2 + 2 * math.log(2),
        ),
    ],
)
def test_each_exit_counts_by_its_weight(value: torch.Tensor, expected: float) -> None:
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_smoothing_spreads_its_share_of_the_label_over_all_classes() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    label = torch.tensor([0])
    log_p = torch.log_softmax(logits, dim=1)[0]
    # 0.3 of the label: 0.1 to each of three classes.
    expected = -(0.8 * log_p[0] + 0.1 * log_p[1] + 0.1 * log_p[2])
    found = cross_entropy([logits, logits], label, [1.0, 0.5], 0.3)
    torch.testing.assert_close(found, 1.5 * expected)
    # A teacher that agrees leaves the cross-entropy's share.
    for loss in (mskd, oto):
        taught = loss([logits], [logits], label, 2.0, 0.25, None, 0.3)
        torch.testing.assert_close(taught, 0.75 * expected)
    alone = self_distillation([logits, logits], label, 2.0, 0.25, None, 0.3)
    torch.testing.assert_close(alone, 1.75 * expected)
