"""RKD against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from tests.training.distillers.cases import distiller, embedded, term

RIGHT = embedded([0.0, 0.0], [3.0, 0.0], [0.0, 4.0])
EQUILATERAL = embedded([0.0, 0.0], [2.0, 0.0], [1.0, math.sqrt(3)])


def test_a_right_triangle_is_compared_with_an_equilateral_one() -> None:
    # Distances 3, 4, 5 over their mean: 0.75, 1, 1.25 against 1, 1, 1, each pair in both orders.
    distance = 2 * (0.5 * 0.25**2 + 0 + 0.5 * 0.25**2) / 9
    # Cosines at the corners: 0, 3/5, 4/5 against 1/2 each, in both orders.
    angle = 2 * (0.5 * 0.5**2 + 0.5 * 0.1**2 + 0.5 * 0.3**2) / 27
    value = term(distiller("rkd", RIGHT, EQUILATERAL), RIGHT, EQUILATERAL)
    assert value == pytest.approx(25 * distance + 50 * angle, abs=1e-5)


def test_differences_above_one_count_linearly() -> None:
    # On a line at 0, 1, 10: distances 1, 9, 10 over 20/3 against 10, 1, 9.
    student = embedded([0.0], [1.0], [10.0])
    teacher = embedded([0.0], [10.0], [9.0])
    # |0.15 - 1.5| and |1.35 - 0.15| are above 1, |1.5 - 1.35| is not.
    distance = 2 * ((1.35 - 0.5) + (1.2 - 0.5) + 0.5 * 0.15**2) / 9
    # Only the cosines at samples 2 and 3 change, between -1 and 1.
    angle = 2 * (1.5 + 1.5) / 27
    value = term(distiller("rkd", student, teacher), student, teacher)
    assert value == pytest.approx(25 * distance + 50 * angle, abs=1e-4)


def test_the_loss_is_invariant_to_rotation_translation_and_scale_of_the_embeddings() -> None:
    moved = embedded([5.0, 5.0], [5.0, 5.3], [4.6, 5.0])
    assert term(distiller("rkd", moved, RIGHT), moved, RIGHT) == pytest.approx(0.0, abs=1e-6)
