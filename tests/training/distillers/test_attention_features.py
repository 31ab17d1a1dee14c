"""AFD against numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from tests.training.distillers.cases import distiller, put, shown, term
from training.distillers.base import Distiller
from training.models.multi_exit import Outputs

D = 128


def blind(student: Outputs, teacher: Outputs) -> Distiller:
    """The distiller with zero keys, queries and positions: it attends to all stages equally."""
    criterion = distiller("afd", student, teacher)
    for layer in [*(key[0] for key in criterion.keys), *criterion.queries]:
        put(layer[0].weight, [[0.0]])
    put(criterion.keys_per_query[0].weight, [[0.0]])
    put(criterion.position_s, [[0.0]])
    put(criterion.position_t, [[0.0]])
    return criterion


# Squared: (3, 4), at length 1 (0.6, 0.8); and (1, 0). Half of 0.4^2 + 0.8^2 lies between them.
TEACHER = shown([[[[math.sqrt(3), 2.0]]]])
STUDENT = shown([[[[5.0, 0.0]]]], [[[[math.sqrt(3), 2.0]]]])


def test_squared_differences_of_maps_at_length_one_are_averaged_by_attention() -> None:
    value = term(blind(STUDENT, TEACHER), STUDENT, TEACHER)
    assert value == pytest.approx(0.5 * 0.4 + 0.5 * 0, abs=1e-6)


def test_positions_shift_the_attention() -> None:
    # Products sqrt(128) ln 3 and 0 over sqrt(128): attention 3/4 and 1/4.
    criterion = blind(STUDENT, TEACHER)
    put(criterion.position_t, [[math.sqrt(D)]])
    put(criterion.position_s, [[math.log(3)], [0.0]])
    assert term(criterion, STUDENT, TEACHER) == pytest.approx(0.75 * 0.4, abs=1e-6)


def test_attention_follows_keys_behind_a_relu_and_queries() -> None:
    # The teacher's mean is 1, its query sqrt(128). The student's means ln 3 and -1/2 give keys ln 3
    # and 0, hence attention 3/4 and 1/4. The first map equals the teacher's, the second is (0, 1).
    teacher = shown([[[[2.0, 0.0]]]])
    student = shown([[[[2 * math.log(3), 0.0]]]], [[[[0.0, -1.0]]]])
    criterion = blind(student, teacher)
    put(criterion.queries[0][0].weight, [[math.sqrt(D)]])
    for key in criterion.keys:
        put(key[0][0].weight, [[1.0]])
    put(criterion.keys_per_query[0].weight, [[1.0]])
    assert term(criterion, student, teacher) == pytest.approx(0.25 * (1 + 1) / 2, abs=1e-4)


def test_the_teachers_stages_are_summed_each_with_its_own_attention() -> None:
    # The second stage of the teacher attends to the student's first alone, which it equals.
    teacher = shown(TEACHER.features[0], [[[[1.0, 0.0]]]])
    criterion = blind(STUDENT, teacher)
    put(criterion.position_t, [[0.0], [math.sqrt(D)]])
    put(criterion.position_s, [[50.0], [0.0]])
    assert term(criterion, STUDENT, teacher) == pytest.approx(0.2, abs=1e-6)


def test_the_students_map_is_pooled_to_the_teachers_size_whichever_is_larger() -> None:
    # Averages of the squares 1, 5 and 4, 4: the student's map becomes (3, 4).
    wide = shown([[[[1.0, math.sqrt(5), 2.0, 2.0]]]])
    teacher = shown([[[[1.0, 0.0]]]])
    assert term(blind(wide, teacher), wide, teacher) == pytest.approx(0.4, abs=1e-6)
    # The student's map becomes (1, 1) / sqrt 2.
    narrow = shown([[[[3.0]]]])
    half = math.sqrt(0.5)
    expected = ((1 - half) ** 2 + half**2) / 2
    assert term(blind(narrow, teacher), narrow, teacher) == pytest.approx(expected, abs=1e-6)


def test_a_student_of_one_stage_that_equals_its_teacher_has_no_loss() -> None:
    assert term(distiller("afd", TEACHER, TEACHER), TEACHER, TEACHER) == pytest.approx(0, abs=1e-6)
