"""PKT against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from tests.training.distillers.cases import distiller, embedded, term


def test_the_rows_of_cosines_are_compared_as_probabilities() -> None:
    # Orthogonal samples give (1, 1/2), so (2/3, 1/3); alike ones (1, 1), so (1/2, 1/2).
    student, teacher = embedded([3.0, 0.0], [0.0, 2.0]), embedded([1.0, 1.0], [2.0, 2.0])
    row = 0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3))
    value = term(distiller("pkt", student, teacher), student, teacher)
    assert value == pytest.approx(2 * row / 4, abs=1e-6)


def test_opposite_samples_have_probability_zero_and_a_finite_loss() -> None:
    # The student gives (1, 0), the teacher (1/2, 1/2).
    student, teacher = embedded([1.0], [-1.0]), embedded([1.0], [1.0])
    row = 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-7)
    value = term(distiller("pkt", student, teacher), student, teacher)
    assert value == pytest.approx(2 * row / 4, rel=1e-4)
