"""The student that is placed before a given network: its recipe, chosen by the images and its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from training.errors import RecipeError
from training.models.cost import network_cost
from training.recipes.auto import (
    DEGRADE,
    LITE0,
    MAX_SMALL_SIDE,
    TEMPERATURE,
    VIEWS,
    crops_at,
    input_side_of,
    schedule,
    width_for,
)
from training.recipes.network import NetworkRecipe
from training.recipes.schema import DataRecipe, ExitObjective, Recipe, StartRecipe, TrainRecipe
from training.recipes.teacher import TeacherRecipe

# Every image pays for the student, so it may cost up to this share of the network behind it.
MAX_COST_SHARE = 0.25
# The sides at which a pretrained student sees an image, and where it answers: after its third stage, at
# two thirds of its cost, and at its end.
LITE_SIDES = (160, 128, 96, 64)
LITE_EXITS = (3, 4)
# The channels of the first group of a student from scratch; each group of a block has twice those of the
# one before, and an exit.
WIDTHS = (64, 48, 32, 24, 16, 12, 8, 6, 4)
SMALL_BLOCKS = (1, 1, 1)


@dataclass(frozen=True)
class Given:
    """What a student is chosen for: the images, of which `held_out` are not trained on, and the network
    that answers them.

    `data` is the directory of its answers (training/data/answers.py), whose images have `side` pixels;
    `content` is the side up to which they show detail. `network` is its file, which takes uint8 images of
    that side and returns the logits of `classes`, at a cost of `macs` for one image.
    """

    data: str
    images: int
    held_out: int
    side: int
    content: int
    network: str
    classes: int
    macs: int


@dataclass(frozen=True)
class StudentChoice:
    """The recipe of a student, its cost for one image, and the reasons, one line each."""

    recipe: Recipe
    macs: int
    reasons: tuple[str, ...]


def choose_student(
    name: str, given: Given, *, epochs: int | None = None, seed: int = 0
) -> StudentChoice:
    """The recipe `name` of a student that learns from the answers of the network in `given` alone.

    Images with content beyond 64 pixels get EfficientNet-Lite0 from ImageNet weights, at the largest of
    LITE_SIDES at which it costs at most MAX_COST_SHARE of the network. Smaller images, and networks that
    are too cheap for that, get a residual network from scratch, with the most channels of WIDTHS that the
    number of images allows at that cost. `epochs` replaces the rule's. Raises RecipeError if every student
    costs more.
    """
    network, macs = _largest_affordable(given)
    pretrained = network.name == LITE0
    train, schedule_reason = schedule(given.images - given.held_out, pretrained=pretrained)
    if epochs is not None:
        train = train.model_copy(update={"epochs": epochs})
        schedule_reason = f"{epochs} epochs as asked, in batches of {train.batch_size}"
    recipe = Recipe(
        name=name,
        seed=seed,
        data=DataRecipe(
            name="answers",
            path=given.data,
            side=given.side,
            held_out=given.held_out,
            scale=(0.08, 1.0) if pretrained else None,
            padding=0 if pretrained else given.side // 8,
            degrade=DEGRADE,
        ),
        network=network,
        # Without labels: the teacher's probabilities are all that is learnt from.
        objective=ExitObjective(
            method="mskd", temperature=TEMPERATURE, alpha=1.0, gradient_equilibrium=True
        ),
        teacher=TeacherRecipe(onnx=(given.network,), onnx_input="uint8-nhwc", views=VIEWS),
        start=StartRecipe(weights="imagenet") if pretrained else None,
        train=_with_crops(train, network),
    )
    return StudentChoice(
        recipe,
        macs,
        (
            _network_reason(given, network),
            f"it costs {macs / 1e6:.3g} M MACs, {macs / given.macs:.0%} of the network behind it "
            f"(at most {MAX_COST_SHARE:.0%})",
            f"{given.held_out} of {given.images} images are held out: some set temperatures and "
            "thresholds, the others certify",
            schedule_reason,
            f"mskd: the given network's answers to {VIEWS} views of the images teach every exit",
        ),
    )


def _largest_affordable(given: Given) -> tuple[NetworkRecipe, int]:
    """The first candidate that is cheap enough, and its cost."""
    cheapest = None
    for network in _candidates(given):
        _, macs = network_cost(network, given.side, given.classes)
        if macs <= MAX_COST_SHARE * given.macs:
            return network, macs
        cheapest = macs if cheapest is None else min(cheapest, macs)
    assert cheapest is not None
    raise RecipeError(
        f"no front is cheap enough: the cheapest takes {cheapest / 1e6:.3g} M MACs an image, more than "
        f"{MAX_COST_SHARE:.0%} of the {given.macs / 1e6:.3g} M of the network behind it."
    )


def _candidates(given: Given) -> Iterator[NetworkRecipe]:
    """The networks that suit the images, the best first."""
    content = min(given.content, given.side)
    if content > MAX_SMALL_SIDE:
        for side in LITE_SIDES:
            if side < given.side:
                yield NetworkRecipe(name=LITE0, side=side, antialias=True, exits=LITE_EXITS)
    small = input_side_of(min(content, MAX_SMALL_SIDE))
    for width in WIDTHS:
        if width <= width_for(given.images):
            yield NetworkRecipe(
                name="resnet",
                channels=tuple(width << group for group in range(len(SMALL_BLOCKS))),
                blocks=SMALL_BLOCKS,
                side=small if small < given.side else None,
                antialias=True if small < given.side else None,
            )


def _with_crops(train: TrainRecipe, network: NetworkRecipe) -> TrainRecipe:
    if network.name != LITE0:
        return train
    assert network.side is not None
    return crops_at(train, network.side)


def _network_reason(given: Given, network: NetworkRecipe) -> str:
    exits = f"{len(network.exits)} exits"
    if network.name == LITE0:
        return (
            f"{network.title} from ImageNet weights, {exits}: the images show detail beyond "
            f"{MAX_SMALL_SIDE} pixels"
        )
    small = min(given.content, given.side) <= MAX_SMALL_SIDE
    why = (
        f"the images show no detail beyond {MAX_SMALL_SIDE} pixels"
        if small
        else f"{LITE0} costs too much beside the given network"
    )
    return f"{network.title} from scratch, {exits}: {why}"
