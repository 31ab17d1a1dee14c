"""FitNet against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch

from tests.training.distillers.cases import distiller, put, shown, term

IGNORED = [[[[9.0]]]]


def test_the_hint_is_the_mean_square_error_of_the_regressed_second_stage() -> None:
    # r takes the channel x to relu(x) and relu(-x): (1, -2) becomes (1, 0) and (0, 2).
    student = shown(IGNORED, [[[[1.0, -2.0]]]], IGNORED)
    teacher = shown(IGNORED, [[[[2.0, 0.0]], [[1.0, 2.0]]]], [[[[5.0]]]])
    criterion = distiller("fitnet", student, teacher)
    put(criterion.regressor[0].weight, [[1.0], [-1.0]])
    assert term(criterion, student, teacher) == pytest.approx((1 + 0 + 1 + 0) / 4, abs=1e-4)


def test_a_student_that_is_regressed_onto_its_teacher_has_no_loss() -> None:
    same = shown(IGNORED, [[[[1.0, 2.0]]], [[[3.0, 0.0]]]])
    criterion = distiller("fitnet", same, same)
    put(criterion.regressor[0].weight, [[1.0]])
    assert term(criterion, same, same) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [(8, 4), (4, 8)])
def test_half_and_double_sides_use_a_learnt_convolution_without_pooling(
    ours: int, theirs: int
) -> None:
    student, teacher = (shown(IGNORED, torch.rand(1, 2, side, side)) for side in (ours, theirs))
    criterion = distiller("fitnet", student, teacher)
    assert criterion.regressor(student.features[1]).shape == teacher.features[1].shape


def test_maps_of_other_sides_are_averaged_down_to_the_smaller_one() -> None:
    student = shown(IGNORED, [[[[1.0, 3.0, 5.0, 7.0]] * 4]])
    teacher = shown(IGNORED, [[[[1.0]]]])
    criterion = distiller("fitnet", student, teacher)
    put(criterion.regressor[0].weight, [[1.0]])
    assert term(criterion, student, teacher) == pytest.approx((4 - 1) ** 2, abs=1e-3)


def test_networks_of_one_stage_are_refused_in_one_sentence() -> None:
    one, two = shown(IGNORED), shown(IGNORED, IGNORED)
    with pytest.raises(ValueError, match=r"compares stage 2, but the teacher has 1 stage\."):
        distiller("fitnet", two, one)
