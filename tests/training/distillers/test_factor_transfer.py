"""FT with fixed factors.

The student's two positions hold (1, 1) and (2, 0): mean squares 1 and 2, scaled (1, 2) / sqrt 5. The
teacher's hold (3, 0) and (0, 0): mean squares 4.5 and 0, scaled (1, 0). So L_m is the mean of
1 - 1 / sqrt 5 and 2 / sqrt 5, which is (1 + 1 / sqrt 5) / 2.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.training.distillers.tiny import batch, distiller, shown
from training.distillers.factor_transfer import FactorTransfer

LOGITS = torch.tensor([[0.0, 0.0]])
STUDENT = shown(LOGITS, [torch.tensor([[[[1.0, 2.0]], [[1.0, 0.0]]]])])
TEACHER = shown(LOGITS, [torch.tensor([[[[3.0, 0.0]], [[0.0, 0.0]]]])])


def with_given_factors() -> FactorTransfer:
    method = distiller("ft", STUDENT, TEACHER)
    assert isinstance(method, FactorTransfer)
    method.translator = nn.Sequential()
    method.paraphraser["encode"] = nn.Sequential()
    return method


def test_the_term_is_the_mean_distance_of_the_scaled_profiles_of_both_factors() -> None:
    value = with_given_factors().term(STUDENT, TEACHER, batch([0])).item()
    assert value == pytest.approx((1 + 1 / math.sqrt(5)) / 2, abs=1e-6)


def test_the_loss_adds_two_hundred_times_the_term_to_the_cross_entropy() -> None:
    value = with_given_factors()(STUDENT, TEACHER, batch([0])).item()
    assert value == pytest.approx(math.log(2) + 100 * (1 + 1 / math.sqrt(5)), abs=1e-4)


def test_the_larger_map_is_pooled_to_the_smaller() -> None:
    large = torch.tensor(
        [[[[2.0, 0.0, 1.0, 3.0]], [[2.0, 0.0, -1.0, 1.0]]]]
    )  # pairs pool to STUDENT's
    student = shown(LOGITS, [large])
    value = with_given_factors().term(student, TEACHER, batch([0])).item()
    assert value == pytest.approx((1 + 1 / math.sqrt(5)) / 2, abs=1e-6)


def test_the_preparation_is_the_mean_squared_error_of_the_reproduction() -> None:
    method = with_given_factors()
    method.paraphraser["decode"] = nn.ReLU()  # exact but for the negative value
    teacher = shown(LOGITS, [torch.tensor([[[[3.0, -2.0]], [[0.0, 1.0]]]])])
    assert method.prepare(None, teacher, batch([0])).item() == pytest.approx(4 / 4)


def test_factors_have_half_the_teachers_channels_at_the_same_positions() -> None:
    student, teacher = torch.randn(2, 6, 4, 4), torch.randn(2, 10, 4, 4)
    method = distiller("ft", shown(LOGITS, [student]), shown(LOGITS, [teacher]))
    assert isinstance(method, FactorTransfer)
    assert method.translator(student).shape == (2, 5, 4, 4)
    factor = method.paraphraser["encode"](teacher)
    assert factor.shape == (2, 5, 4, 4)
    assert method.paraphraser["decode"](factor).shape == teacher.shape
