"""The recipes for an image folder, chosen by the number of images and the resolution of their content."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from training.recipes.network import LiteNetwork, NetworkRecipe
from training.recipes.reasons import counts_reason, flip_reason
from training.recipes.schema import (
    DataRecipe,
    ExitObjective,
    Progressive,
    Recipe,
    StartRecipe,
    TrainRecipe,
)
from training.recipes.teacher import TeacherRecipe

# Images with content up to this shorter side have an input of 32 or 64 pixels. From scratch they get a
# network made for such images.
MAX_SMALL_SIDE = 64
LARGE_SIDES = (128, 160, 192, 224)
# The sides at which the first and the second network of a pretrained cascade see an image, for the largest
# input and for smaller ones. Cost grows with the square of the side. Random crops show objects larger, so
# they are seen at a share of the side.
LARGE_SIDES_SEEN, SIDES_SEEN = (128, 224), (96, 160)
CROP_SHARE = 0.75
# Up to this many images a run is repeated on all of them.
MAX_REFIT_IMAGES = 5_000
# A view of the teacher holds the images once more in memory.
MAX_VIEW_BYTES = 1 << 30
VIEWS = 4
LITE0: LiteNetwork = "efficientnet-lite0"
LITE2: LiteNetwork = "efficientnet-lite2"
# Of the distillation from a network that was trained before.
TEMPERATURE, ALPHA = 2.0, 0.5
SMOOTHING = 0.1
DEGRADE = 0.25
PRETRAINED_RATE = 0.001


@dataclass(frozen=True)
class Choice:
    """Recipes in training order, the last one for the run to export, and the reasons for their values,
    one line each."""

    recipes: tuple[Recipe, ...]
    reasons: tuple[str, ...]


def choose_recipes(
    name: str,
    path: str,
    counts: Mapping[str, int],
    side: int,
    *,
    enlarged_from: int | None = None,
    from_scratch: bool = False,
    teacher: bool = False,
    refit: bool | None = None,
    seed: int = 0,
) -> Choice:
    """Recipes for the image folder `path`; the run to export is called `name`.

    `counts` are the training images of each class, `side` is the median of their shorter sides in
    pixels, and `enlarged_from` what that was before they were enlarged, None if they were not.

    By default there are two: NAME-deep is a pretrained network, and NAME the same network at a lower
    resolution, which learns from NAME-deep and is followed by it. `from_scratch` uses no pretrained
    weights, and then there is one network. With `teacher` a larger network is trained first. `refit`
    repeats every run on everything, with the held-out split; by default for up to 5,000 images.
    """
    images = sum(counts.values())
    held_out = _held_out(images, len(counts))
    content = side if enlarged_from is None else min(side, enlarged_from)
    small, input_side = content <= MAX_SMALL_SIDE, input_side_of(content)
    settings, schedule_reason = schedule(images - held_out, pretrained=not from_scratch)
    repeated = images <= MAX_REFIT_IMAGES if refit is None else refit
    data = DataRecipe(
        name="folder",
        path=path,
        side=input_side,
        held_out=held_out,
        scale=(0.08, 1.0) if not from_scratch else None if small else (0.35, 1.0),
        padding=input_side // 8 if small and from_scratch else 0,
        degrade=DEGRADE,
    )
    recipe = partial(Recipe, data=data, refit=repeated, seed=seed)
    choose = _from_scratch if from_scratch else _pretrained
    recipes, network_reasons = choose(name, recipe, settings, content, images, teacher)
    return Choice(
        recipes,
        (
            counts_reason(counts, side, enlarged_from),
            _side_reason(content, input_side),
            *network_reasons,
            f"{held_out} images are held out to set temperatures and thresholds",
            schedule_reason,
            *([_refit_reason(averaged=not from_scratch)] if repeated else []),
            flip_reason([recipe.name for recipe in recipes]),
            f"{DEGRADE:.0%} of the images are compressed, blurred, rescaled or given other colours",
        ),
    )


_Recipes = tuple[tuple[Recipe, ...], tuple[str, ...]]


def _pretrained(
    name: str,
    recipe: Callable[..., Recipe],
    train: TrainRecipe,
    content: int,
    images: int,
    teacher: bool,
) -> _Recipes:
    """EfficientNet-Lite0 at two resolutions, the lower one first."""
    side = input_side_of(content)
    front_side, deep_side = LARGE_SIDES_SEEN if side == LARGE_SIDES[-1] else SIDES_SEEN
    imagenet = StartRecipe(weights="imagenet")
    plain = ExitObjective(method="cross_entropy", smoothing=SMOOTHING)
    kd = ExitObjective(method="kd", temperature=TEMPERATURE, alpha=ALPHA)
    views = VIEWS if images * side * side * 3 <= MAX_VIEW_BYTES else None
    first: tuple[Recipe, ...] = ()
    deep = partial(
        recipe,
        name=f"{name}-deep",
        network=NetworkRecipe(name=LITE0, side=deep_side, antialias=True, exits=(4,)),
        train=crops_at(train, deep_side),
        start=imagenet,
    )
    if teacher:
        larger = recipe(
            name=f"{name}-teacher",
            network=NetworkRecipe(name=LITE2, side=deep_side, antialias=True, exits=(4,)),
            train=crops_at(train, deep_side),
            objective=plain,
            start=imagenet,
        )
        lesson = TeacherRecipe(recipe=larger.name, views=views)
        first = (larger, deep(objective=kd, teacher=lesson))
    else:
        first = (deep(objective=plain),)
    front = recipe(
        name=name,
        followed_by=f"{name}-deep",
        network=NetworkRecipe(name=LITE0, side=front_side, antialias=True, exits=(4,)),
        train=crops_at(train, front_side),
        objective=kd,
        teacher=TeacherRecipe(recipe=f"{name}-deep", views=views),
        start=StartRecipe(recipe=f"{name}-deep"),
    )
    share = (front_side / deep_side) ** 2
    reasons = [
        f"{LITE0} from ImageNet weights, twice: {name} at {front_side} pixels answers the easy "
        f"images, {name}-deep at {deep_side} pixels sees the others",
        f"{name} costs {share:.0%} of {name}-deep, starts from its weights and learns from its answers",
    ]
    if teacher:
        reasons.append(f"{name}-deep learns from a {LITE2} trained first, as asked")
    return (*first, front), tuple(reasons)


def _from_scratch(
    name: str,
    recipe: Callable[..., Recipe],
    train: TrainRecipe,
    content: int,
    images: int,
    teacher: bool,
) -> _Recipes:
    """A residual network with four exits and no pretrained weights."""
    recipe = partial(recipe, train=train)
    if content <= MAX_SMALL_SIDE:
        width = width_for(images)
        network = NetworkRecipe(name="resnet18", width=width)
        larger = NetworkRecipe(name="resnet50", width=width)
        reason = (
            f"resnet18 of width {width}, from scratch as asked: its first layers keep all of a small "
            "image, and its width goes with the number of images"
        )
    else:
        network = NetworkRecipe(name="torchvision-resnet18")
        larger = NetworkRecipe(name="torchvision-resnet50")
        reason = "torchvision-resnet18, from scratch as asked"
    if not teacher:
        objective = ExitObjective(method="self_distillation", temperature=3.0, alpha=0.5)
        student = recipe(name=name, network=network, objective=objective)
        return (student,), (reason, "self_distillation: the deepest exit teaches the others")
    first = recipe(
        name=f"{name}-teacher",
        network=larger,
        objective=ExitObjective(method="cross_entropy"),
    )
    second = recipe(
        name=name,
        network=network,
        objective=ExitObjective(method="oto", temperature=3.0, alpha=0.5),
        teacher=TeacherRecipe(recipe=first.name),
    )
    return (first, second), (
        reason,
        f"oto: each exit learns from the same exit of a {larger.title} trained first, from scratch",
    )


def width_for(images: int) -> int:
    """The channels of the first stage of a residual network that is trained from scratch on `images`."""
    return 16 if images < 1_000 else 32 if images < 10_000 else 64


def crops_at(train: TrainRecipe, side: int) -> TrainRecipe:
    """`train` with random crops seen at a share of `side`, a multiple of 4."""
    progressive = Progressive(side=round(CROP_SHARE * side / 4) * 4, fraction=1)
    return train.model_copy(update={"progressive": progressive})


def _held_out(images: int, classes: int) -> int:
    """A tenth, raised to 100 but to at most a fifth; at least one per class, at most 5000."""
    return max(classes, min(max(images // 10, 100), images // 5, 5000))


def input_side_of(content: int) -> int:
    """The side at which images with content up to the side `content` are looked at."""
    if content <= MAX_SMALL_SIDE:
        return 32 if content < 48 else 64
    return max((large for large in LARGE_SIDES if large <= content), default=LARGE_SIDES[0])


def _refit_reason(*, averaged: bool) -> str:
    mean = ", and its weights are the mean of both times" if averaged else ""
    return (
        "afterwards every network is trained once more on all images, the held-out ones included"
        f"{mean}; temperatures and thresholds stay those of the first time"
    )


def _side_reason(content: int, input_side: int) -> str:
    if content <= MAX_SMALL_SIDE:
        return f"side {input_side}: the nearer of 32 and 64 pixels"
    if input_side > content:
        return f"side {input_side}: the smallest that suits a network made for 224 pixels"
    return f"side {input_side}: the largest of 128, 160, 192 and 224 that the images fill"


def schedule(samples: int, *, pretrained: bool) -> tuple[TrainRecipe, str]:
    """Epochs, batch size and learning rate for `samples` an epoch, and the reason."""
    batch = 32 if samples < 1_000 else 64 if samples < 10_000 else 128
    if pretrained:
        batch = min(batch, 32)
    # With fewer samples a power of two as well: torch 2.15 crashed on odd batches on a CPU. A quarter of
    # the files may turn out to be unreadable.
    batch = min(batch, 1 << ((3 * samples // 4).bit_length() - 1))
    steps = samples // batch
    min_epochs, min_steps = (10, 200) if pretrained else (30, 200)
    epochs = max(min_epochs, math.ceil(min_steps / steps))
    if pretrained:
        settings = TrainRecipe(
            epochs=epochs,
            batch_size=batch,
            optimizer="adamw",
            learning_rate=PRETRAINED_RATE * batch / 32,
            weight_decay=0.01,
        )
    else:
        settings = TrainRecipe(
            epochs=epochs,
            batch_size=batch,
            # In proportion to the batch, the usual rule.
            learning_rate=0.05 * batch / 64,
        )
    return settings, (
        f"{epochs} epochs in batches of {batch}: at least {min_epochs} epochs and {min_steps} steps"
    )
