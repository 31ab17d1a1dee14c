"""AB on two stages of one channel and four positions, two images alike.

Stage 1, weight 1/2: s = (-2, -0.5, 0.5, 2) against t = (-1, -1, 1, 1): every neuron on its side, two of
them within the margin: 0 + 0.5^2 + 0.5^2 + 0 = 0.5. Stage 2, weight 1: s = (2, -2, 0.5, -0.5) against
t = (-1, 3, 0, 0.1): 3^2 + 3^2 + 1.5^2 + 1.5^2 = 22.5. Together 0.003 (0.25 + 22.5) an image.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.training.distillers.tiny import batch, distiller, shown
from training.distillers.activation_boundaries import ActivationBoundaries
from training.errors import RecipeError

LOGITS = torch.tensor([[0.0, 1.0], [2.0, 0.0]])


def row(*values: float) -> Tensor:
    return torch.tensor(values).expand(2, 1, 1, len(values)).clone()


STUDENT = shown(LOGITS, preactivations=[row(-2, -0.5, 0.5, 2), row(2, -2, 0.5, -0.5)])
TEACHER = shown(LOGITS, preactivations=[row(-1, -1, 1, 1), row(-1, 3, 0, 0.1)])


def test_the_preparation_penalises_neurons_within_the_margin_or_on_the_wrong_side() -> None:
    loss = distiller("ab", STUDENT, TEACHER).prepare(STUDENT, TEACHER, batch([0, 1]))
    assert loss.item() == pytest.approx(0.003 * (0.25 + 22.5), rel=1e-6)


def test_after_the_preparation_the_loss_is_cross_entropy_alone() -> None:
    loss = distiller("ab", STUDENT, TEACHER)(STUDENT, TEACHER, batch([1, 1]))
    # -log softmax: log(1 + e^-1) = 0.313262 and log(1 + e^2) = 2.126928, in the mean 1.220095.
    assert loss.item() == pytest.approx(1.220095, abs=1e-6)


def test_a_student_of_other_width_and_map_size_is_connected_to_the_teachers() -> None:
    student = shown(LOGITS, preactivations=[torch.randn(2, 3, 8, 8)])
    teacher = shown(LOGITS, preactivations=[torch.randn(2, 5, 4, 4)])
    method = distiller("ab", student, teacher)
    method.prepare(student, teacher, batch([0, 1])).backward()
    assert isinstance(method, ActivationBoundaries)
    (connector,) = method.connectors
    assert [tuple(p.shape) for p in connector.parameters()] == [(5, 3, 1, 1), (5,), (5,)]
    assert all(p.grad is not None and p.grad.any() for p in connector.parameters())


def test_networks_of_unequal_depth_are_refused() -> None:
    deeper = shown(LOGITS, preactivations=[row(1), row(1), row(1)])
    with pytest.raises(RecipeError, match="student has 2 and the teacher 3"):
        distiller("ab", STUDENT, deeper)
