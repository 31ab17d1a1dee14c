"""VID against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from tests.training.distillers.cases import distiller, put, shown, term
from training.distillers.base import Distiller
from training.models.multi_exit import Outputs


def predicting(student: Outputs, teacher: Outputs, factor: float) -> Distiller:
    """The distiller that predicts the teacher's first channel as `factor` times the student's."""
    criterion = distiller("vid", student, teacher)
    for prediction in criterion.predictions:
        first, _, second, _, third = prediction.mean
        for convolution, value in ((first, factor), (second, 1.0), (third, 1.0)):
            put(convolution.weight, [[value]])
    return criterion


def test_the_teachers_features_are_gaussian_around_the_prediction_with_variance_5_at_first() -> (
    None
):
    # Stage 1 predicts (2, 4), wrong by (1, 0); stage 2 predicts 6, wrong by 3.
    student = shown([[[[1.0, 2.0]]]], [[[[3.0]]]])
    teacher = shown([[[[3.0, 4.0]]]], [[[[3.0]]]])
    value = term(predicting(student, teacher, 2.0), student, teacher)
    stage1 = (0.5 * (1 / 5 + math.log(5)) + 0.5 * math.log(5)) / 2
    stage2 = 0.5 * (9 / 5 + math.log(5))
    assert value == pytest.approx(stage1 + stage2, abs=1e-5)


def test_every_channel_of_the_teacher_has_its_own_variance() -> None:
    # The second channel, predicted as 0, is wrong by 2; its variance is softplus(ln(e - 1)) = 1.
    student, teacher = shown([[[[1.0]]]]), shown([[[[1.0]], [[2.0]]]])
    criterion = predicting(student, teacher, 1.0)
    rho = criterion.predictions[0].rho
    put(rho, [rho[0].item(), math.log(math.e - 1)])
    value = term(criterion, student, teacher)
    assert value == pytest.approx((0.5 * math.log(5) + 0.5 * 4 / 1) / 2, abs=1e-4)


def test_an_exact_prediction_leaves_the_logarithm_of_the_variance() -> None:
    same = shown([[[[1.0, 2.0]]]])
    value = term(predicting(same, same, 1.0), same, same)
    assert value == pytest.approx(0.5 * math.log(5), abs=1e-5)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_larger_map_is_averaged_down_to_the_smaller(swapped: bool) -> None:
    large, small = shown([[[[1.0, 3.0], [5.0, 7.0]]]]), shown([[[[2.0]]]])
    student, teacher = (small, large) if swapped else (large, small)
    value = term(predicting(student, teacher, 1.0), student, teacher)
    assert value == pytest.approx(0.5 * ((4 - 2) ** 2 / 5 + math.log(5)), abs=1e-5)
