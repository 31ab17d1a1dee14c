"""SP against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from tests.training.distillers.cases import distiller, shown, term


def test_the_samples_similarities_in_the_last_stage_are_compared_row_by_row_at_length_one() -> None:
    # The student's two samples are orthogonal: G = (2, 0), (0, 3) becomes (1, 0), (0, 1). The
    # teacher's are alike: every row is (1, 1) / sqrt 2.
    ignored = [[[[4.0]]], [[[5.0]]]]
    student = shown(ignored, [[[[math.sqrt(2), 0.0]]], [[[0.0, math.sqrt(3)]]]])
    teacher = shown(ignored, [[[[2.0]], [[1.0]]], [[[2.0]], [[1.0]]]])
    value = term(distiller("sp", student, teacher), student, teacher)
    half = math.sqrt(0.5)
    assert value == pytest.approx((2 * (1 - half) ** 2 + 2 * half**2) / 4, abs=1e-6)
