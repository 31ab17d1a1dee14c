"""The recipe chosen for an image folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.recipes.auto import choose_recipes
from training.recipes.files import load_recipe, write_recipe
from training.recipes.schema import Recipe


def chosen(pictures: int, side: int, classes: int = 4, **options: bool) -> Recipe:
    counts = {f"class {k}": pictures // classes for k in range(classes)}
    return choose_recipes("mine", "/photos", counts, side, **options).recipes[-1]


@pytest.mark.parametrize(
    ("pictures", "side", "network", "width", "input_side"),
    [
        (400, 20, "resnet18", 16, 32),
        (400, 47, "resnet18", 16, 32),
        (400, 48, "resnet18", 16, 64),
        (4_000, 64, "resnet18", 32, 64),
        (40_000, 32, "resnet18", 64, 32),
        (400, 65, "torchvision-mobilenet-v3", None, 128),
        (400, 191, "torchvision-mobilenet-v3", None, 160),
        (40_000, 192, "torchvision-mobilenet-v3", None, 192),
        (400, 3000, "torchvision-mobilenet-v3", None, 224),
    ],
)
def test_image_size_decides_network_and_side_and_their_number_the_width(
    pictures: int, side: int, network: str, width: int | None, input_side: int
) -> None:
    recipe = chosen(pictures, side)
    assert (recipe.network.name, recipe.network.width) == (network, width)
    assert recipe.data.side == input_side
    assert recipe.objective.method == "self_distillation"
    started = recipe.start.weights if recipe.start else None
    assert started == ("torchvision" if width is None else None)


@pytest.mark.parametrize(
    ("pictures", "held_out", "batch", "epochs", "pretrained_epochs"),
    [
        # One of each class is held out; the rest is a single batch, so there are as many epochs as steps.
        (10, 4, 4, 200, 200),
        (400, 80, 32, 30, 20),
        (700, 100, 32, 30, 12),
        (5_000, 500, 64, 30, 10),
        (80_000, 5_000, 128, 30, 10),
    ],
)
def test_the_number_of_images_decides_held_out_share_batch_and_epochs(
    pictures: int, held_out: int, batch: int, epochs: int, pretrained_epochs: int
) -> None:
    counts = {f"class {k}": 0 for k in range(4)}
    counts["class 0"] = pictures
    small = choose_recipes("mine", "/photos", counts, 32).recipes[0]
    large = choose_recipes("mine", "/photos", counts, 224).recipes[0]
    assert small.data.held_out == held_out
    assert (small.train.batch_size, small.train.epochs) == (batch, epochs)
    assert (large.train.batch_size, large.train.epochs) == (batch, pretrained_epochs)
    assert large.train.learning_rate < small.train.learning_rate


def test_from_scratch_large_images_get_resnet18_without_weights() -> None:
    recipe = chosen(400, 224, from_scratch=True)
    assert recipe.network.name == "torchvision-resnet18"
    assert recipe.start is None
    assert recipe.train.epochs == 30


@pytest.mark.parametrize(
    ("side", "teachers", "pretrained"),
    [(32, "resnet50", False), (224, "torchvision-resnet50", True)],
)
def test_a_teacher_is_larger_and_trained_first_on_the_same_split(
    side: int, teachers: str, pretrained: bool
) -> None:
    first, second = choose_recipes(
        "mine", "/photos", {"a": 50, "b": 60}, side, teacher=True
    ).recipes
    assert first.network.name == teachers
    assert second.teacher is not None
    assert second.teacher.recipe == first.name == "mine-teacher"
    assert (first.objective.method, second.objective.method) == ("cross_entropy", "oto")
    assert first.data == second.data
    assert (first.start is not None) == (second.start is not None) == pretrained


def test_every_choice_has_a_reason_of_one_line() -> None:
    reasons = choose_recipes("mine", "/photos", {"a": 50, "b": 60}, 100).reasons
    text = "\n".join(reasons)
    assert text.count("\n") == len(reasons) - 1
    for part in ("110 training pictures in 2 classes, 50 to 60", "side 128", "mobilenet"):
        assert part in text
    for part in ("self_distillation", "22 pictures are held out", "epochs", "data.flip = false"):
        assert part in text


@pytest.mark.parametrize("side", [32, 224])
def test_a_written_recipe_is_read_back_unchanged(tmp_path: Path, side: int) -> None:
    for recipe in choose_recipes(
        "mine", '/tmp/a "b"\\c', {"a": 50, "b": 60}, side, teacher=True
    ).recipes:
        path = tmp_path / "runs" / f"{recipe.name}.toml"
        write_recipe(recipe, path, ["why", "and why"])
        assert path.read_text().startswith("# why\n# and why\n")
        assert load_recipe(str(path)) == recipe
