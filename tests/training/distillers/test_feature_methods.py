"""Properties of every distiller that matches features or embeddings."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from tests.training.distillers.cases import batch, distiller, shown, term
from training.distillers import DISTILLERS
from training.models.build import build_network
from training.models.multi_exit import Normalize, Outputs
from training.recipes.schema import Recipe
from training.run import run_recipe
from training.step import Step

WEIGHTS = {
    "fitnet": (1, 0, 100),
    "at": (1, 0, 1000),
    "sp": (1, 0, 3000),
    "cc": (1, 0, 0.02),
    "vid": (1, 0, 1),
    "rkd": (1, 0, 1),
    "pkt": (1, 0, 30000),
    "afd": (1, 0.9, 200),
}
PARAMETER_FREE = ("at", "sp", "rkd", "pkt")
every_method = pytest.mark.parametrize("method", WEIGHTS)

# Channels and side of every stage.
RESNET = ((4, 16), (8, 8), (16, 4), (32, 2))
BOTTLENECK = ((16, 16), (32, 8), (64, 4), (128, 2))
WIDE = ((6, 16), (12, 8), (24, 4))
HALVED_FIRST = ((4, 8), (8, 4), (16, 2), (16, 2))
LARGE = ((5, 56), (10, 28), (20, 14), (40, 7))


def random_outputs(stages: tuple[tuple[int, int], ...], samples: int = 6) -> Outputs:
    return shown(*(torch.rand(samples, c, side, side) for c, side in stages))


def gradients(method: str, student: Outputs, teacher: Outputs) -> list[torch.Tensor]:
    """The gradients of L_m by the student's features it depends on; L_m itself must be finite."""
    for features in student.features:
        features.requires_grad_()
    value = distiller(method, student, teacher).train().term(student, teacher, batch(6))
    assert value.isfinite()
    found = torch.autograd.grad(value, student.features, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


@every_method
def test_the_weights_are_those_of_the_source_unless_the_recipe_sets_others(method: str) -> None:
    outputs = random_outputs(RESNET)
    plain = distiller(method, outputs, outputs)
    assert (plain.gamma, plain.alpha, plain.beta) == WEIGHTS[method]
    assert plain.temperature == 4
    chosen = distiller(method, outputs, outputs, gamma=0.5, alpha=1.0, beta=7.0)
    assert (chosen.gamma, chosen.alpha, chosen.beta) == (0.5, 1, 7)


@every_method
def test_the_documentation_gives_the_methods_name_and_weight(method: str) -> None:
    table = (Path(__file__).parents[3] / "docs" / "reference" / "distillers.md").read_text("utf-8")
    row = next(line for line in table.splitlines() if line.startswith(f"| `{method}` |"))
    beta = re.search(r"β = ([0-9.]+)", row)
    assert beta is not None
    assert float(beta[1]) == DISTILLERS[method].beta


@pytest.mark.parametrize("method", PARAMETER_FREE)
def test_the_loss_is_zero_for_a_student_equal_to_its_teacher(method: str) -> None:
    torch.manual_seed(0)
    same, other = random_outputs(RESNET), random_outputs(RESNET)
    assert term(distiller(method, same, same), same, same) == pytest.approx(0, abs=1e-7)
    assert term(distiller(method, same, other), same, other) > 1e-5


@every_method
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RESNET, BOTTLENECK),
        (WIDE, RESNET),
        (RESNET, WIDE),
        (HALVED_FIRST, RESNET),
        (RESNET, HALVED_FIRST),
        (RESNET, LARGE),
        (LARGE, RESNET),
    ],
)
def test_networks_of_different_channels_sides_and_stages_are_compared(
    method: str, ours: tuple[tuple[int, int], ...], theirs: tuple[tuple[int, int], ...]
) -> None:
    torch.manual_seed(0)
    found = gradients(method, random_outputs(ours), random_outputs(theirs))
    assert found
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found)


@every_method
def test_maps_may_have_other_sides_than_the_adapters_were_built_for(method: str) -> None:
    torch.manual_seed(0)
    criterion = distiller(method, random_outputs(RESNET), random_outputs(HALVED_FIRST))
    small = [
        random_outputs(tuple((c, -(-side // 2)) for c, side in stages))
        for stages in (RESNET, HALVED_FIRST)
    ]
    assert math.isfinite(term(criterion, *small))


@every_method
@pytest.mark.parametrize("case", ["all zero", "one sample zero", "all alike", "two alike"])
def test_gradients_stay_moderate_where_norms_and_distances_are_zero(method: str, case: str) -> None:
    torch.manual_seed(0)
    student, teacher = random_outputs(RESNET), random_outputs(RESNET)
    for features in student.features:
        if case == "all zero":
            features.zero_()
        elif case == "one sample zero":
            features[2] = 0
        elif case == "all alike":
            features[:] = features[0].clone()
        else:
            features[1] = features[4]
    for gradient in gradients(method, student, teacher):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3


@every_method
def test_gradients_reach_student_and_adapters_but_never_the_teacher(method: str) -> None:
    torch.manual_seed(0)
    student = build_network("resnet10", 4, 10, [4])
    teacher = build_network("resnet50", 4, 10, [4])
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        seen = [network.eval().observe(image) for network in (student, teacher)]
    criterion = distiller(method, *seen, gamma=0.0, alpha=0.0)
    normalize = Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    step = Step(student, teacher, criterion, normalize, "fp32").train()
    images = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8)
    step(images, batch(6)).backward()
    learning = [*student.stages[:2].parameters(), *criterion.parameters()]
    for parameter in learning:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def recipe(name: str, width: int, **more: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": name,
            "data": {"name": "digits", "held_out": 1397 - 128, "padding": 1, "flip": False},
            "network": {"name": "resnet10", "width": width, "exits": [4]},
            "objective": {"method": "cross_entropy"},
            "train": {"epochs": 1, "batch_size": 64},
            **more,
        }
    )


def run(runs: Path, what: Recipe) -> None:
    run_recipe(what, runs=runs, data_root=runs, device="cpu", say=lambda _: None)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs with a trained teacher, twice as wide as its students."""
    runs = tmp_path_factory.mktemp("runs")
    run(runs, recipe("teacher", 8))
    return runs


@every_method
def test_a_student_is_trained_for_two_steps(taught: Path, method: str) -> None:
    what = recipe(method, 4, objective={"method": method}, teacher={"recipe": "teacher"})
    run(taught, what)
    (epoch,) = map(json.loads, (taught / method / "metrics.jsonl").read_text().splitlines())
    assert math.isfinite(epoch["loss"])
    assert (taught / method / "model.safetensors").exists()
