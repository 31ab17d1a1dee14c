"""CC against numbers computed by hand."""

from __future__ import annotations

import pytest

from tests.training.distillers.cases import distiller, embedded, put, term
from training.distillers.base import Distiller
from training.models.multi_exit import Outputs


def with_plain_embeddings(student: Outputs, teacher: Outputs) -> Distiller:
    """The distiller whose learnt embeddings are the identity on two dimensions."""
    criterion = distiller("cc", student, teacher)
    for embed in (criterion.embed_student, criterion.embed_teacher):
        put(embed.weight, [[1.0, 0.0], [0.0, 1.0]])
        put(embed.bias, [0.0])
    return criterion


def test_neighbours_absolute_errors_are_multiplied_and_summed_over_dimensions() -> None:
    # Absolute errors (1, 0), (1, 2), (3, 2): products 1 and 3 + 4.
    student = embedded([1.0, 0.0], [1.0, 2.0], [3.0, 1.0])
    teacher = embedded([2.0, 0.0], [0.0, 0.0], [0.0, 3.0])
    value = term(with_plain_embeddings(student, teacher), student, teacher)
    assert value == pytest.approx((1 + 7) / 2, abs=1e-6)


def test_equal_embeddings_have_no_loss() -> None:
    same = embedded([1.0, 0.0], [1.0, 2.0], [3.0, 1.0])
    assert term(with_plain_embeddings(same, same), same, same) == 0


def test_a_batch_of_one_has_no_neighbours_and_no_loss() -> None:
    student, teacher = embedded([1.0, 0.0]), embedded([2.0, 0.0])
    assert term(with_plain_embeddings(student, teacher), student, teacher) == 0
