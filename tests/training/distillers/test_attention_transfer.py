"""AT against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from tests.training.distillers.cases import distiller, shown, term

# Squared and averaged over two channels this is (3, 4), at length 1 (0.6, 0.8).
THREE_FOUR = [[[[math.sqrt(6), 0.0]], [[0.0, math.sqrt(8)]]]]


def test_attention_maps_are_compared_at_length_one() -> None:
    student, teacher = shown(THREE_FOUR), shown([[[[7.0, 0.0]]]])
    value = term(distiller("at", student, teacher), student, teacher)
    assert value == pytest.approx((0.4**2 + 0.8**2) / 2, abs=1e-6)


def test_stages_are_summed_and_those_of_only_one_network_are_ignored() -> None:
    left, right = [[[[1.0, 0.0]]]], [[[[0.0, 1.0]]]]
    student, teacher = shown(THREE_FOUR, left, left), shown(left, right)
    value = term(distiller("at", student, teacher), student, teacher)
    assert value == pytest.approx(0.4 + (1 + 1) / 2, abs=1e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_larger_map_is_averaged_before_it_is_squared(swapped: bool) -> None:
    # Averages 2 and 3, squares 4 and 9.
    large = shown([[[[1.0, 1.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]]]])
    small = shown([[[[0.0, 1.0]]]])
    student, teacher = (small, large) if swapped else (large, small)
    value = term(distiller("at", student, teacher), student, teacher)
    length = math.sqrt(4**2 + 9**2)
    assert value == pytest.approx(((4 / length) ** 2 + (9 / length - 1) ** 2) / 2, abs=1e-6)
