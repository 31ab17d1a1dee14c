"""CRD against the same sums in numpy, on embeddings of two values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.distillers.tiny import batch, distiller, shown, vectors
from training.distillers.contrastive_representation import ContrastiveRepresentation

LABELS = torch.tensor([0, 0, 1, 1])  # two negatives for each image: all of the other class
STUDENT = np.array([[3.0, 4.0], [1.0, 0.0]])
TEACHER = np.array([[0.0, 2.0], [5.0, 12.0]])
STUDENT_BANK = np.array([[0.1, 0.2], [0.0, 0.3], [0.2, 0.0], [0.1, 0.1]])
TEACHER_BANK = np.array([[0.2, 0.1], [0.1, 0.3], [0.0, 0.2], [0.3, 0.1]])
INDEX = [1, 2]  # their labels: 0 and 1


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def padded(bank: np.ndarray) -> Tensor:
    return torch.cat([torch.tensor(bank), torch.zeros(len(bank), 126)], 1).float()


def method() -> ContrastiveRepresentation:
    """CRD whose linear maps are the identity on two values, with filled banks."""
    outputs = [shown(torch.zeros(2, 2), [vectors(rows.tolist())]) for rows in (STUDENT, TEACHER)]
    built = distiller("crd", *outputs, labels=LABELS)
    assert isinstance(built, ContrastiveRepresentation)
    with torch.no_grad():
        for embed in (built.student_embed, built.teacher_embed):
            embed.weight.copy_(torch.eye(128, 2))
            embed.bias.zero_()
        built.student_bank.copy_(padded(STUDENT_BANK))
        built.teacher_bank.copy_(padded(TEACHER_BANK))
    return built


def term(built: ContrastiveRepresentation) -> float:
    student, teacher = (
        shown(torch.zeros(2, 2), [vectors(rows.tolist())]) for rows in (STUDENT, TEACHER)
    )
    return built.term(student, teacher, batch([0, 1], INDEX)).item()


def scores(anchors: np.ndarray, bank: np.ndarray) -> list[tuple[float, list[float]]]:
    """exp of the similarities to an image's own row and to those of the other class."""
    others = [[2, 3], [0, 1]]
    return [
        (np.exp(a @ bank[i] / 0.07), [np.exp(a @ bank[j] / 0.07) for j in js])
        for a, i, js in zip(unit(anchors), INDEX, others, strict=True)
    ]


def constant(anchors: np.ndarray, bank: np.ndarray) -> float:
    everything = [[own, *rest] for own, rest in scores(anchors, bank)]
    return float(np.mean(everything) * 4)


def nce(anchors: np.ndarray, bank: np.ndarray, z: float) -> float:
    noise, total = 2 / 4, 0.0
    for own, rest in scores(anchors, bank):
        total -= np.log(own / z / (own / z + noise))
        total -= sum(np.log(noise / (other / z + noise)) for other in rest)
    return total / 2


def test_the_term_contrasts_partners_with_images_of_other_classes_both_ways() -> None:
    z_s, z_t = constant(STUDENT, TEACHER_BANK), constant(TEACHER, STUDENT_BANK)
    expected = nce(STUDENT, TEACHER_BANK, z_s) + nce(TEACHER, STUDENT_BANK, z_t)
    assert term(method()) == pytest.approx(expected, rel=1e-4)


def test_the_next_batch_uses_the_updated_banks_and_the_first_batchs_constants() -> None:
    built = method()
    z_s, z_t = constant(STUDENT, TEACHER_BANK), constant(TEACHER, STUDENT_BANK)
    term(built)
    student_bank, teacher_bank = STUDENT_BANK.copy(), TEACHER_BANK.copy()
    student_bank[INDEX] = unit(0.5 * student_bank[INDEX] + 0.5 * unit(STUDENT))
    teacher_bank[INDEX] = unit(0.5 * teacher_bank[INDEX] + 0.5 * unit(TEACHER))
    torch.testing.assert_close(built.student_bank, padded(student_bank))
    torch.testing.assert_close(built.teacher_bank, padded(teacher_bank))
    expected = nce(STUDENT, teacher_bank, z_s) + nce(TEACHER, student_bank, z_t)
    assert term(built) == pytest.approx(expected, rel=1e-4)


def drawing(negatives: int, labels: Tensor) -> ContrastiveRepresentation:
    """CRD with a split of these labels and this number of negatives."""
    outputs = shown(torch.zeros(2, 2), [torch.zeros(2, 3, 1, 1)])
    built = distiller("crd", outputs, outputs, labels=labels)
    assert isinstance(built, ContrastiveRepresentation)
    built.negatives = negatives
    return built


def test_negatives_are_never_of_the_images_own_class() -> None:
    labels = torch.tensor([0, 1] * 20)
    first = shown(torch.zeros(2, 2), [torch.randn(2, 3, 1, 1)])
    values = []
    for changed in (None, 0, 1):
        torch.manual_seed(3)
        built = drawing(15, labels)
        if changed is not None:
            rows = labels == changed
            rows[[0, 2]] = False
            built.student_bank[rows] = built.teacher_bank[rows] = 0.5
        values.append(built.term(first, first, batch([0, 0], [0, 2])).item())
    assert values[0] == values[1] != values[2]


def test_every_batch_draws_other_negatives_and_a_restored_state_the_same() -> None:
    labels = torch.tensor([0, 1] * 20)
    built = drawing(5, labels)
    outputs = shown(torch.zeros(2, 2), [torch.randn(2, 3, 1, 1)])
    ask = batch([0, 1])
    built.term(outputs, outputs, ask)
    state = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    later = [built.term(outputs, outputs, ask).item() for _ in range(3)]
    torch.manual_seed(99)
    other = drawing(5, labels)
    other.load_state_dict(state)
    assert [other.term(outputs, outputs, ask).item() for _ in range(3)] == later
    built.load_state_dict(state)
    built.set_extra_state(torch.Generator().manual_seed(1).get_state())
    assert built.term(outputs, outputs, ask).item() != later[0]


def test_gradients_reach_the_student_and_both_linear_maps() -> None:
    built = method()
    features = vectors(STUDENT.tolist()).requires_grad_()
    student = shown(torch.zeros(2, 2), [features])
    teacher = shown(torch.zeros(2, 2), [vectors(TEACHER.tolist())])
    built.term(student, teacher, batch([0, 1], INDEX)).backward()
    grads = [features.grad, built.student_embed.weight.grad, built.teacher_embed.weight.grad]
    assert all(grad is not None and grad.any() for grad in grads)
