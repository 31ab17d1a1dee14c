"""The student before a given network follows from the images and from what that network costs."""

from __future__ import annotations

import pytest

from training.errors import RecipeError
from training.planning.student import MAX_COST_SHARE, Given, StudentChoice, choose_student
from training.recipes.files import to_toml

LITE = "efficientnet-lite0"


def choose(
    macs: float, side: int = 256, content: int = 224, images: int = 2_000, **options: int
) -> StudentChoice:
    given = Given(
        data="/runs/answers/1",
        images=images,
        held_out=images // 3,
        side=side,
        content=content,
        network="/runs/answers/1/large.onnx",
        classes=10,
        macs=int(macs),
    )
    return choose_student("large-front", given, **options)


@pytest.mark.parametrize(
    ("macs", "side"), [(4.1e9, 160), (9e8, 160), (7e8, 128), (4e8, 96), (2e8, 64)]
)
def test_photographs_get_a_pretrained_network_at_the_largest_side_that_is_cheap(
    macs: float, side: int
) -> None:
    choice = choose(macs)
    network = choice.recipe.network
    assert (network.name, network.side, network.exits) == (LITE, side, (3, 4))
    assert choice.macs <= MAX_COST_SHARE * macs
    assert choice.recipe.start is not None
    assert choice.recipe.start.weights == "imagenet"
    progressive = choice.recipe.train.progressive
    assert progressive is not None
    assert progressive.side == 0.75 * side


def test_a_student_sees_fewer_pixels_than_the_network_behind_it() -> None:
    assert choose(4.1e9, side=160, content=160).recipe.network.side == 128


@pytest.mark.parametrize(("images", "width"), [(900, 16), (9_000, 32), (20_000, 64)])
def test_the_width_of_a_student_from_scratch_goes_with_the_number_of_images(
    images: int, width: int
) -> None:
    network = choose(1e10, side=64, content=64, images=images).recipe.network
    assert network.channels == (width, 2 * width, 4 * width)
    assert network.exits == (1, 2, 3)
    assert network.side is None


def test_and_with_what_the_network_costs() -> None:
    choice = choose(3e7, side=64, content=64, images=20_000)
    assert choice.recipe.network.name == "resnet"
    assert choice.macs <= MAX_COST_SHARE * 3e7
    assert choose(3e8, side=64, content=64, images=20_000).macs > choice.macs


@pytest.mark.parametrize(("content", "side"), [(30, 32), (60, 64)])
def test_small_images_that_a_network_enlarges_are_seen_small(content: int, side: int) -> None:
    network = choose(1e9, content=content).recipe.network
    assert (network.name, network.side) == ("resnet", side)


def test_a_network_that_is_too_cheap_for_a_pretrained_student_gets_one_from_scratch() -> None:
    choice = choose(6e7)
    assert (choice.recipe.network.name, choice.recipe.network.side) == ("resnet", 64)
    assert f"{LITE} costs too much beside the given network" in choice.reasons[0]


def test_a_network_that_is_too_cheap_for_any_is_refused() -> None:
    with pytest.raises(RecipeError, match="no front is cheap enough: the cheapest takes"):
        choose(1e6)


def test_the_recipe_learns_from_the_network_alone_by_views_of_the_answered_images() -> None:
    choice = choose(9e8)
    recipe, teacher = choice.recipe, choice.recipe.teacher
    assert (recipe.objective.method, recipe.objective.alpha) == ("mskd", 1.0)
    assert (recipe.data.name, recipe.data.side, recipe.data.held_out) == ("answers", 256, 666)
    assert teacher is not None
    assert teacher.onnx == ("/runs/answers/1/large.onnx",)
    assert teacher.onnx_input == "uint8-nhwc"
    assert not recipe.refit
    assert 'name = "answers"' in to_toml(recipe)


def test_every_choice_has_a_reason_and_epochs_can_be_given() -> None:
    choice = choose(9e8, epochs=3)
    assert choice.recipe.train.epochs == 3
    assert len(choice.reasons) == 5
    assert "3 epochs as asked" in choice.reasons[3]
    assert "666 of 2000 images are held out" in choice.reasons[2]
    assert "22% of the network behind it (at most 25%)" in choice.reasons[1]
