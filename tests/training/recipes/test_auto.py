"""The recipes chosen for an image folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.recipes.auto import MAX_VIEW_BYTES, Choice, choose_recipes
from training.recipes.files import load_recipe, write_recipe
from training.recipes.schema import Recipe


def choose(
    images: int, side: int, classes: int = 4, enlarged_from: int | None = None, **options: bool
) -> Choice:
    counts = {f"class {k}": images // classes for k in range(classes)}
    return choose_recipes("mine", "/photos", counts, side, enlarged_from=enlarged_from, **options)


def chosen(images: int, side: int, **options: bool) -> Recipe:
    return choose(images, side, **options).recipes[-1]


@pytest.mark.parametrize(
    ("side", "enlarged_from", "input_side"),
    [
        (20, None, 32),
        (47, None, 32),
        (48, None, 64),
        (64, None, 64),
        (65, None, 128),
        (191, None, 160),
        (3000, None, 224),
        (256, 32, 32),
        (256, 48, 64),
        (1000, 64, 64),
    ],
)
def test_the_content_decides_the_input_side_and_every_network_is_pretrained(
    side: int, enlarged_from: int | None, input_side: int
) -> None:
    deep, front = choose(400, side, enlarged_from=enlarged_from).recipes
    for recipe in (deep, front):
        assert recipe.data.side == input_side
        assert recipe.network.name == "efficientnet-lite0"
        assert recipe.data.degrade > 0
    assert deep.start is not None
    assert deep.start.weights == "imagenet"


@pytest.mark.parametrize("side", [32, 100, 224])
def test_a_low_resolution_comes_first_and_learns_from_the_network_that_follows_it(
    side: int,
) -> None:
    deep, front = choose(400, side).recipes
    assert (deep.name, front.name) == ("mine-deep", "mine")
    assert front.followed_by == deep.name
    assert deep.network.side is not None
    assert front.network.side is not None
    assert 0.2 < (front.network.side / deep.network.side) ** 2 < 0.5
    assert front.start is not None
    assert front.teacher is not None
    assert front.start.recipe == front.teacher.recipe == deep.name
    assert (deep.objective.method, front.objective.method) == ("cross_entropy", "kd")
    assert front.data == deep.data


@pytest.mark.parametrize(
    ("images", "side", "network", "width", "input_side"),
    [
        (400, 20, "resnet18", 16, 32),
        (400, 48, "resnet18", 16, 64),
        (4_000, 64, "resnet18", 32, 64),
        (40_000, 32, "resnet18", 64, 32),
        (400, 224, "torchvision-resnet18", None, 224),
    ],
)
def test_from_scratch_there_is_one_network_made_for_the_size(
    images: int, side: int, network: str, width: int | None, input_side: int
) -> None:
    (recipe,) = choose(images, side, from_scratch=True).recipes
    assert (recipe.network.name, recipe.network.width) == (network, width)
    assert recipe.data.side == input_side
    assert recipe.objective.method == "self_distillation"
    assert recipe.start is None
    assert recipe.train.epochs == 30


@pytest.mark.parametrize(
    ("images", "held_out", "batch", "epochs", "pretrained"),
    [
        # One of each class is held out; the rest is a single batch, so there are as many epochs as steps.
        (10, 4, 4, 200, (4, 200)),
        (400, 80, 32, 30, (32, 20)),
        (700, 100, 32, 30, (32, 12)),
        (5_000, 500, 64, 30, (32, 10)),
        (80_000, 5_000, 128, 30, (32, 10)),
    ],
)
def test_the_number_of_images_decides_held_out_share_batch_and_epochs(
    images: int, held_out: int, batch: int, epochs: int, pretrained: tuple[int, int]
) -> None:
    counts = {f"class {k}": 0 for k in range(4)}
    counts["class 0"] = images
    scratch = choose_recipes("mine", "/photos", counts, 32, from_scratch=True).recipes[-1]
    started = choose_recipes("mine", "/photos", counts, 32).recipes[-1]
    assert scratch.data.held_out == started.data.held_out == held_out
    assert (scratch.train.batch_size, scratch.train.epochs) == (batch, epochs)
    assert (started.train.batch_size, started.train.epochs) == pretrained
    assert started.train.learning_rate < scratch.train.learning_rate


@pytest.mark.parametrize(
    ("images", "wish", "refit"),
    [
        (5_000, {}, True),
        (5_004, {}, False),
        (400, {"refit": False}, False),
        (9_000, {"refit": True}, True),
    ],
)
def test_up_to_5000_images_every_run_is_repeated_on_everything(
    images: int, wish: dict[str, bool], refit: bool
) -> None:
    choice = choose(images, 224, **wish)
    assert [recipe.refit for recipe in choice.recipes] == [refit] * 2
    assert ("once more on all images" in "\n".join(choice.reasons)) is refit


def test_views_of_the_teacher_are_kept_while_the_images_fit_into_memory_once_more() -> None:
    most = MAX_VIEW_BYTES // (3 * 224 * 224)
    few, many = chosen(most // 4 * 4, 224), chosen(most + 4, 224)
    assert few.teacher is not None
    assert many.teacher is not None
    assert few.teacher.views == 4
    assert many.teacher.views is None


def test_a_teacher_is_a_larger_pretrained_network_trained_first_on_the_same_split() -> None:
    larger, deep, front = choose(400, 224, teacher=True).recipes
    assert larger.name == "mine-teacher"
    assert larger.network.name == "efficientnet-lite2"
    assert deep.teacher is not None
    assert deep.teacher.recipe == larger.name
    assert deep.objective.method == "kd"
    assert larger.data == deep.data == front.data


@pytest.mark.parametrize(("side", "larger"), [(32, "resnet50"), (224, "torchvision-resnet50")])
def test_from_scratch_each_exit_of_the_teacher_teaches_one(side: int, larger: str) -> None:
    first, second = choose(110, side, from_scratch=True, teacher=True).recipes
    assert first.network.name == larger
    assert second.teacher is not None
    assert second.teacher.recipe == first.name == "mine-teacher"
    assert (first.objective.method, second.objective.method) == ("cross_entropy", "oto")
    assert first.data == second.data


def test_the_first_classes_are_named_in_one_line() -> None:
    counts = dict.fromkeys(("a\nb", "c", "d", "e"), 50)
    first, *_ = choose_recipes("mine", "/photos", counts, 100).reasons
    assert first.startswith("200 training images in 4 classes ('a\\nb', c, d, …), 50 a class")


def test_every_choice_has_a_reason_of_one_line() -> None:
    reasons = choose_recipes("mine", "/photos", {"a": 50, "b": 60}, 100, enlarged_from=48).reasons
    text = "\n".join(reasons)
    assert text.count("\n") == len(reasons) - 1
    for part in (
        "110 training images in 2 classes (a, b), 50 to 60",
        "were enlarged from about 48",
        "side 64",
        "efficientnet-lite0 from ImageNet weights, twice",
        "mine costs 36% of mine-deep",
        "22 images are held out",
        "epochs",
        "data.flip = false in mine-deep.toml and mine.toml",
        "compressed, blurred",
    ):
        assert part in text


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_written_recipe_is_read_back_unchanged(
    tmp_path: Path, side: int, from_scratch: bool
) -> None:
    for recipe in choose_recipes(
        "mine",
        '/tmp/a "b"\\c',
        {"a": 50, "b": 60},
        side,
        teacher=True,
        from_scratch=from_scratch,
    ).recipes:
        path = tmp_path / "runs" / f"{recipe.name}.toml"
        write_recipe(recipe, path, ["why", "and why"])
        assert path.read_text().startswith("# why\n# and why\n")
        assert load_recipe(str(path)) == recipe
